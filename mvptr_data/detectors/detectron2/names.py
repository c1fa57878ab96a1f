"""The names of classes and attributes in vocabulary files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mvptr_data.errors import InputError

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


def checked(names: tuple[str, ...], expected: int, what: str, source: str) -> tuple[str, ...]:
    """`names`, if there is one for each output. Raises `InputError`."""
    if len(names) != expected:
        raise InputError(
            f"{source} names {len(names)} {what}, the model has {expected}", "Give the names it was trained with."
        )
    return names
