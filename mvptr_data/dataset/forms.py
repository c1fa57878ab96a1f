"""What the JSON files of a data set hold: a form for each, checked before anything in a file is used.

A digest says that a file is as it was written, not who wrote it: another program may have put a list where a name should be,
or a path where a number should be, and signed it. A form is one of

* a `Kind`: one value, such as `COUNT`
* `[form]`: a list of such values
* `{name: form, ...}`: an object that has these names, and maybe others
* `Each(form, names)`: an object whose values are all such, and that has these names
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from mvptr_data.errors import DamagedFileError


class Kind(NamedTuple):
    """A kind of single value: what it is called, and what tells it."""

    name: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Each:
    """An object with any names, `names` among them, whose values all have the form `of`."""

    of: Form
    names: tuple[str, ...] = ()


Form: TypeAlias = "Kind | Each | list[Form] | dict[str, Form]"

TEXT = Kind("text", lambda value: isinstance(value, str))
NUMBER = Kind("a number", lambda value: type(value) in (int, float))
#: What is summed: an int64 holds it.
COUNT = Kind("a count", lambda value: type(value) is int and 0 <= value < 1 << 63)
#: What numbers shards and generations, and so becomes a part of file names: an int32 holds it.
ORDINAL = Kind("a number from 0 to 2147483647", lambda value: type(value) is int and 0 <= value < 1 << 31)
OBJECT: Form = {}


def check_form(value: Any, form: Form, where: str, remedy: str) -> None:
    """Raises `DamagedFileError` naming `where` and the first value in it that is not as its form says."""
    for problem in _problems(value, form, ""):
        raise DamagedFileError(f"{where} {problem}", remedy)


def _problems(value: Any, form: Form, path: str) -> Iterator[str]:
    if isinstance(form, Kind):
        if not form.holds(value):
            yield _other(value, form.name, path)
    elif isinstance(form, list):
        if isinstance(value, list):
            for number, item in enumerate(value):
                yield from _problems(item, form[0], f"{path}[{number}]")
        else:
            yield _other(value, "a list", path)
    elif not isinstance(value, dict):
        yield _other(value, "an object", path)
    else:
        known = dict.fromkeys((*form.names, *value), form.of) if isinstance(form, Each) else form
        for name, part in known.items():
            if name in value:
                yield from _problems(value[name], part, _within(path, name))
            else:
                yield f"lacks {_within(path, name)}"


def _within(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _other(value: Any, wanted: str, path: str) -> str:
    shown = ascii(value) if not isinstance(value, int) or abs(value) < 1 << 64 else "a number of many digits"
    return f"has {shown[:60]} as {path}, not {wanted}" if path else f"is not {wanted}"
