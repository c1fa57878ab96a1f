"""Settings from YAML and the command line, and beside a run as JSON.

    settings = read_settings("paper.yaml", ["output=runs/a", "batches.global_batch=256", "stages.0.epochs=2"])

What is not given has its default. A key that there is not is refused, and the known ones are named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import yaml

from mvptr_data.dataset.fields import configuration_differences
from mvptr_data.errors import ConfigurationMismatchError, FormatVersionError, InputError
from mvptr_data.storage import Store
from mvptr_model.configuration import PRESETS
from mvptr_model.training.settings import InitialSettings, PretrainSettings, StageSettings

SETTINGS_VERSION = 1
SETTINGS_FILE = "settings.json"

#: Bytes that a file of settings may have.
_MOST_BYTES = 1 << 20
#: What a resumed run may have otherwise: none of it decides a weight. Data sets are known by their digests, not their place.
_FREE = ("data", "output", "log", "checkpoints", "batches.workers", "batches.prefetch_bytes", "batches.max_faults")


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-4 and 2e8 as numbers, as YAML 1.2 does and PyYAML does not."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def read_settings(path: str, overrides: Sequence[str] = ()) -> PretrainSettings:
    """The settings in a YAML file (or at a URL), changed by `key=value` texts with dotted keys; values are YAML.

    Raises `InputError`.
    """
    given = _loaded(_read(path), path)
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
        values["inputs"]["preset"] = preset if preset in PRESETS else "paper"
    try:
        return msgspec.convert(values, PretrainSettings, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"the settings cannot be used: {error}", "The path after $ is the key.") from error


def resolved(settings: PretrainSettings) -> dict[str, Any]:
    """All settings as JSON values; of the model, its preset and what differs from that."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(settings))
    del found["masking"]["seed"]
    return found


def store_settings(store: Store, settings: PretrainSettings) -> None:
    """Write `settings.json` into a run's folder."""
    store.write_json(SETTINGS_FILE, {"version": SETTINGS_VERSION, **resolved(settings)})


def check_same_run(store: Store, settings: PretrainSettings) -> None:
    """Raises `ConfigurationMismatchError` with the difference where the run in a folder has other settings.

    Those that decide no weight may differ, and a later stage may be added. Raises `FormatVersionError`, `DamagedFileError`.
    """
    try:
        stored = store.read_json(SETTINGS_FILE)
    except FileNotFoundError:
        return
    version = stored.pop("version", None)
    if version != SETTINGS_VERSION:
        raise FormatVersionError(
            f"{store.path(SETTINGS_FILE)} has settings version {version!r}; this release reads {SETTINGS_VERSION}",
            "Go on with the release that began the run.",
        )
    asked = resolved(settings)
    if isinstance(stored.get("stages"), list):
        asked["stages"] = asked["stages"][: max(len(stored["stages"]), 1)]
    differences = configuration_differences(_deciding(stored), _deciding(asked))
    if differences:
        raise ConfigurationMismatchError(
            f"{store.root} holds a run with other settings (stored -> asked): {'; '.join(differences)}",
            "Go on with the stored settings, or give another output.",
        )


def _deciding(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what is learned, by their dotted keys."""
    found: dict[str, Any] = {}
    pending = [(name, value) for name, value in values.items() if name not in _FREE]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict) and value:
            pending += [(f"{path}.{name}", inner) for name, inner in value.items() if f"{path}.{name}" not in _FREE]
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
    for name, value in given.items():
        where = f"{path}.{name}" if path else str(name)
        if name not in known:
            raise InputError(
                f"there is no setting {where}", f"Known{f' in {path}' if path else ''}: {', '.join(known)}."
            )
        if name == "stages":
            values[name] = _merged_stages(values[name], value)
        elif name == "initial":  # naming a source replaces another one
            values[name] = _merged(dict.fromkeys(known[name]), value, where)
        elif name == "model" and isinstance(value, Mapping):  # its keys are known to `ModelConfiguration`
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
    found = _loaded(value, text)
    for name in reversed(key.split(".")):
        found = {name: found}
    return found


def _loaded(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{where} is not YAML ({' '.join(str(error).split())})", "Mend the line it names.") from error


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
