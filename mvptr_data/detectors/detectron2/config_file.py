"""Config files, read as data: detectron2's own reader runs Python that a file holds, this one only knows plain YAML.

`_BASE_` names files that a config builds on. They are YAML files beside the config or below the folder above it, as in
detectron2's `configs/`; nothing else on the disk is opened, and nothing from the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvptr_data.errors import DamagedFileError, InputError

BASE_KEY = "_BASE_"
SUFFIXES = (".yaml", ".yml")
#: Configs that build on each other, at most; detectron2's own are three deep.
MAX_DEPTH = 8
#: A config has a few kB.
MAX_BYTES = 1 << 20


def read_config(path: Path) -> dict[str, Any]:
    """The settings in `path`, laid over those of its bases.

    Raises `InputError` for a file that cannot be read, is no YAML by its name, or builds on what it must not, and
    `DamagedFileError` for content that is not plain YAML with names at its top.
    """
    if path.suffix == ".py":
        raise InputError(
            f"the config {str(path)!r} is Python, which would be run",
            "Give a YAML config. Of a lazy config, only the model's counterpart in YAML can be used.",
        )
    return _read(path.absolute(), path.absolute().parent.parent.resolve(), ())


def _read(path: Path, top: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.suffix not in SUFFIXES:
        raise InputError(f"the config {str(path)!r} is no YAML file", f"Give one that ends in {' or '.join(SUFFIXES)}.")
    if path.resolve() in above or len(above) >= MAX_DEPTH:
        raise InputError(
            f"the config {str(above[0])!r} builds on itself, or on more than {MAX_DEPTH - 1} others in a row",
            f"Mend {BASE_KEY}.",
        )
    content = _load(path)
    bases = content.pop(BASE_KEY, [])
    merged: dict[str, Any] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        merged = _over(merged, _read(_base(path, top, base), top, (*above, path.resolve())))
    return _over(merged, content)


def _load(path: Path) -> dict[str, Any]:
    import yaml  # comes with detectron2

    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read the config {str(path)!r}: {error.strerror}", "Check the path.") from error
    if len(data) > MAX_BYTES:
        raise DamagedFileError(f"the config {str(path)!r} has more than {MAX_BYTES:,} bytes", "Give a model's config.")
    try:
        has_aliases = any(isinstance(token, yaml.AliasToken) for token in yaml.scan(data))
        content = None if has_aliases else yaml.safe_load(data)  # a few lines of them can stand for gigabytes
    except Exception as error:  # beside its own, the library lets through what Python says of such a day as 2020-99-99
        line = str(getattr(error, "problem", None) or f"{type(error).__name__} ({' '.join(str(error).split())[:100]})")
        place = getattr(error, "problem_mark", None)
        where = f" in line {place.line + 1}" if place is not None else ""
        raise DamagedFileError(f"the config {str(path)!r} is no plain YAML: {line}{where}", "Mend it there.") from error
    if has_aliases:
        raise DamagedFileError(f"the config {str(path)!r} uses YAML aliases", "Write the values out.")
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise DamagedFileError(f"the config {str(path)!r} has no names at its top", "Give a model's config.")
    return content


def _base(path: Path, top: Path, base: object) -> Path:
    if not isinstance(base, str) or "://" in base or base.startswith(("/", "~")):
        raise InputError(
            f"the config {str(path)!r} builds on {base!r}",
            f"{BASE_KEY} has to be a relative path; copy the file beside it.",
        )
    found = path.parent / base
    if not found.resolve().is_relative_to(top):
        raise InputError(
            f"the config {str(path)!r} builds on {base!r}, which is outside of {str(top)!r}", "Copy the file beside it."
        )
    return found


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
