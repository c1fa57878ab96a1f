from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.dataset.forms import COUNT, NUMBER, OBJECT, ORDINAL, TEXT, Each, Form, check_form
from mvptr_data.errors import DamagedFileError

FORM: Form = {"name": TEXT, "shards": [ORDINAL], "counts": Each(COUNT, ("ok",)), "more": OBJECT}
SOUND = {"name": "x", "shards": [0, 7], "counts": {"ok": 3}, "more": {"any": None}, "newer": 1}


def test_what_has_its_form_passes() -> None:
    check_form(SOUND, FORM, "here", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 7}, "here has 7 as name, not text"),
        ({"shards": [0, -1]}, r"here has -1 as shards\[1\], not a number from 0"),
        ({"shards": [2**31]}, r"as shards\[0\]"),
        ({"shards": {"0": 1}}, "as shards, not a list"),
        ({"counts": {"ok": True}}, "here has True as counts.ok, not a count"),
        ({"counts": {"ok": 10**400}}, "here has a number of many digits as counts.ok"),
        ({"counts": {"other": 1}}, r"here lacks counts\.ok"),
        ({"counts": [1]}, r"here has \[1\] as counts, not an object"),
        ({"more": "x" * 999}, "here has 'x+ as more, not an object"),
    ],
)
def test_what_has_not_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DamagedFileError, match=message):
        check_form(SOUND | change, FORM, "here", "")


@pytest.mark.parametrize("name", sorted(SOUND.keys() - {"newer"}))
def test_what_lacks_is_named(name: str) -> None:
    with pytest.raises(DamagedFileError, match=f"here lacks {name}"):
        check_form({other: value for other, value in SOUND.items() if other != name}, FORM, "here", "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*SOUND, "x"]), inner, max_size=5),
)


@given(JSON)
def test_anything_else_is_a_typed_error(value: Any) -> None:
    for form in (FORM, [FORM], Each(TEXT), COUNT, NUMBER):
        try:
            check_form(value, form, "here", "")
        except DamagedFileError as error:
            assert str(error).startswith("here ") and len(str(error)) < 200
