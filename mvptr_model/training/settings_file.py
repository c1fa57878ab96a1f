"""Settings from YAML and the command line, and beside a run as JSON.

    settings = read_settings("paper.yaml", ["output=runs/a", "batches.global_batch=256", "stages.0.epochs=2"])

What is not given has its default. A key that there is not is refused, and the known ones are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mvptr_data.dataset.fields import configuration_differences
from mvptr_data.errors import ConfigurationMismatchError, FormatVersionError, InputError
from mvptr_data.storage import Store
from mvptr_model.configuration import PRESETS
from mvptr_model.training.settings import InitialSettings, PretrainSettings, StageSettings
from mvptr_model.training.yaml_values import yaml_value

SETTINGS_VERSION = 1
SETTINGS_FILE = "settings.json"

#: Bytes that a file of settings may have.
_MOST_BYTES = 1 << 20
#: What ranks of a run may have otherwise: where the data sets are, and how each reads them.
_OWN = ("data", "batches.workers", "batches.prefetch_bytes")
#: What may be otherwise after a checkpoint that was named, so that a run which diverged can be mended; of stages, too.
_TUNED, _TUNED_STAGE = ("optimizer.clipping", "optimizer.weight_decay"), ("learning_rate", "warm_up")
#: What a resumed run may have otherwise: none of it decides a weight. Data sets are known by their digests, not their place.
_FREE = ("data", "output", "log", "checkpoints", "batches.workers", "batches.prefetch_bytes", "batches.max_faults")


def read_settings(path: str, overrides: Sequence[str] = ()) -> PretrainSettings:
    """The settings in a YAML file (or at a URL), changed by `key=value` texts with dotted keys; values are YAML.

    Raises `InputError`.
    """
    given = yaml_value(_read(path), path)
    if not isinstance(given, dict):
        raise InputError(f"{path} has no settings", "Give `key: value` lines, such as `data: [coco]`.")
    return settings_of(given, *map(_override, overrides))


def settings_of(*given: Mapping[str, Any]) -> PretrainSettings:
    """The settings in nested dictionaries as YAML has them; later ones change earlier ones. Raises `InputError`."""
    values = _defaults()
    for one in given:
        values = _merged(values, one, "")
    if values["inputs"]["preset"] is None:  # as the model's, unless it was chosen
        preset = values["model"].get("preset")
        values["inputs"]["preset"] = preset if preset in list(PRESETS) else "paper"
    try:
        return msgspec.convert(values, PretrainSettings, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"the settings cannot be used: {error}", "The path after $ is the key.") from error


def resolved(settings: PretrainSettings) -> dict[str, Any]:
    """All settings as JSON values; of the model, its preset and what differs from that."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(settings))
    del found["masking"]["seed"]
    return found


def shared_settings(settings: PretrainSettings) -> dict[str, Any]:
    """What all ranks of a run must have alike, by dotted keys."""
    return _flat(resolved(settings), _OWN)


def store_settings(store: Store, settings: PretrainSettings, changed: Mapping[str, Any] | None = None) -> None:
    """Write `settings.json` into a run's folder; `changed` is added to what it says under `changes`."""
    earlier = store.read_json(SETTINGS_FILE).get("changes", []) if store.exists(SETTINGS_FILE) else []
    changes = [*earlier, changed] if changed else earlier
    values = {"version": SETTINGS_VERSION, **resolved(settings)}
    store.write_json(SETTINGS_FILE, values | ({"changes": changes} if changes else {}))


def check_same_run(store: Store, settings: PretrainSettings, *, tuned_from: int | None = None) -> list[str]:
    """Raises `ConfigurationMismatchError` with the difference where the run in a folder has other settings.

    Those that decide no weight may differ, and a later stage may be added. `tuned_from`: learning rate and warm-up of this stage
    and later ones may differ, too, and clipping and weight decay; returns how they do. Raises `FormatVersionError`,
    `DamagedFileError`.
    """
    try:
        stored = store.read_json(SETTINGS_FILE)
    except FileNotFoundError:
        return []
    stored.pop("changes", None)
    version = stored.pop("version", None)
    if version != SETTINGS_VERSION:
        raise FormatVersionError(
            f"{store.path(SETTINGS_FILE)} has settings version {version!r}; this release reads {SETTINGS_VERSION}",
            "Go on with the release that began the run.",
        )
    asked = resolved(settings)
    if isinstance(stored.get("stages"), list):
        asked["stages"] = asked["stages"][: max(len(stored["stages"]), 1)]
    differences = configuration_differences(_flat(stored, _FREE), _flat(asked, _FREE))
    refused = differences
    if tuned_from is not None:
        refused = configuration_differences(_untuned(stored, tuned_from), _untuned(asked, tuned_from))
    if refused:
        raise ConfigurationMismatchError(
            f"{store.root} holds a run with other settings (stored -> asked): {'; '.join(refused)}",
            "Go on with the stored settings, or give another output.",
        )
    return differences


def _untuned(values: Mapping[str, Any], stage: int) -> dict[str, Any]:
    """The settings that decide what is learned, but for those that may be tuned from this stage on."""
    found = _flat(values, (*_FREE, *_TUNED))
    stages = found.get("stages")
    if isinstance(stages, list):
        found["stages"] = [
            {name: value for name, value in one.items() if name not in _TUNED_STAGE or one.get("stage", 0) < stage}
            for one in stages
            if isinstance(one, dict)
        ]
    return found


def _flat(values: Mapping[str, Any], without: Sequence[str]) -> dict[str, Any]:
    """Settings by their dotted keys, `without` some of these."""
    found: dict[str, Any] = {}
    pending = [(name, value) for name, value in values.items() if name not in without]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict) and value:
            pending += [(f"{path}.{name}", inner) for name, inner in value.items() if f"{path}.{name}" not in without]
        else:
            found[path] = value
    return found


def _defaults() -> dict[str, Any]:
    """All that can be given, with its default; `data`, `output` and `initial` have none."""
    whole = PretrainSettings(data=("-",), output="-", initial=InitialSettings(bert="-"))
    found = resolved(whole) | {"data": [], "output": "", "model": dict(whole.model)}
    found["initial"] = dict.fromkeys(found["initial"])
    found["inputs"]["preset"] = None
    return found


def _merged(known: Mapping[str, Any], given: Any, path: str) -> dict[str, Any]:
    """`known`, with the values of `given` in place of its own. Raises `InputError` for a key that is not known."""
    if not isinstance(given, Mapping):
        raise InputError(f"{path or 'the file'} is {given!r}", f"Give some of {', '.join(known)}.")
    values = dict(known)
    for name, value in ((str(key), value) for key, value in given.items()):  # YAML reads 0 as a number
        where = f"{path}.{name}" if path else name
        if name not in known:
            raise InputError(
                f"there is no setting {where}", f"Known{f' in {path}' if path else ''}: {', '.join(known)}."
            )
        if name == "stages":
            values[name] = _merged_stages(values[name], value)
        elif name == "initial":  # naming a source replaces another one
            values[name] = _merged(dict.fromkeys(known[name]), value, where)
        elif where == "model" and isinstance(value, Mapping):  # its keys are known to `ModelConfiguration`
            values[name] = {**values[name], **value}
        elif isinstance(known[name], dict):
            values[name] = _merged(known[name], value, where)
        else:
            values[name] = value
    return values


def _merged_stages(known: list[dict[str, Any]], given: Any) -> list[dict[str, Any]]:
    """A list takes the place of the known stages; {"0": {...}} changes the first of them."""
    blank = msgspec.to_builtins(StageSettings(stage=1, epochs=1)) | {"stage": None, "epochs": None}
    if isinstance(given, list):
        return [_merged(blank, one, f"stages.{number}") for number, one in enumerate(given)]
    places = {str(number): one for number, one in enumerate(known)}
    return list(_merged(places, given, "stages").values())


def _override(text: str) -> dict[str, Any]:
    """`a.b=1` -> {"a": {"b": 1}}."""
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"{text!r} changes no setting", "Write key=value, such as batches.global_batch=256.")
    found = yaml_value(value, text)
    for name in reversed(key.split(".")):
        found = {name: found}
    return found


def _read(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    try:
        with Store.at(folder or slash or ".").open(name) as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise InputError(f"{path} has more than {_MOST_BYTES:,} bytes", "Give a file of settings.")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the settings at {path} ({error})", "Give a YAML file.") from error
