"""The names of classes and attributes: vocabulary files, VinVL's label map, or what detectron2 knows of a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from mvptr_data.errors import DamagedFileError, InputError

#: First lines of vocabularies that stand for "nothing" and have no output of their own.
_NOTHING = ("__background__", "background", "__no_attribute__", "__no_attribute", "no_attribute")


def read_vocabulary(path: Path, expected: int, what: Literal["classes", "attributes"]) -> tuple[str, ...]:
    """One name a line, of several between commas the first (bottom-up attention's `objects_vocab.txt`).

    Raises `InputError` where the file cannot be read or does not name each of `expected` outputs.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the {what} in {str(path)!r}: {error}", "Give a text file, one name a line."
        ) from error
    names = [line.partition(",")[0].strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if len(names) == expected + 1 and names[0].lower() in _NOTHING:
        del names[0]
    if not all(names):
        raise InputError(
            f"line {names.index('') + 1} of {str(path)!r} names nothing", f"Name one of the {what} a line."
        )
    return checked(tuple(names), expected, what, repr(str(path)))


def read_label_map(path: Path, expected: int, what: Literal["classes", "attributes"]) -> tuple[str, ...]:
    """The names in a JSON label map, whose indices count from 1: `label_to_idx` or `idx_to_label`, the same for attributes.

    Raises `InputError` where the file cannot be read or does not name each of `expected` outputs, `DamagedFileError` where it
    is no label map.
    """
    kind = "label" if what == "classes" else "attribute"
    try:
        content: Any = json.loads(path.read_bytes())
        names: dict[int, str]
        if f"{kind}_to_idx" in content:
            names = {int(index): str(name) for name, index in content[f"{kind}_to_idx"].items()}
        else:
            names = {int(index): str(name) for index, name in content[f"idx_to_{kind}"].items()}
    except OSError as error:
        raise InputError(f"cannot read the label map {str(path)!r}: {error.strerror}", "Check the path.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFileError(f"{str(path)!r} is no label map with {what}", "Give JSON with label_to_idx.") from error
    names.pop(0, None)
    if sorted(names) != list(range(1, len(names) + 1)):
        raise DamagedFileError(f"the {what} of {str(path)!r} are not numbered from 1", "Get the label map again.")
    return checked(tuple(names[index] for index in sorted(names)), expected, what, repr(str(path)))


def checked(names: tuple[str, ...], expected: int, what: str, source: str) -> tuple[str, ...]:
    """`names`, if there is one for each output. Raises `InputError`."""
    if len(names) != expected:
        raise InputError(
            f"{source} names {len(names)} {what}, the model has {expected}", "Give the names it was trained with."
        )
    return names
