"""Label maps, the released form and others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mvptr_data.detectors.label_map import load_label_map
from mvptr_data.detectors.vinvl.architecture import X152_C4
from mvptr_data.errors import DamagedFileError, InputError, MvptrError
from tests.mvptr_data.detectors.vinvl.small import SMALL, write_label_map


def test_names_are_in_the_order_of_the_outputs(tmp_path: Path) -> None:
    names = load_label_map(write_label_map(tmp_path / "map.json"), classes=SMALL.classes, attributes=SMALL.attributes)
    assert names.classes[0] == "thing 1" and names.classes[-1] == "thing 40" and len(names.classes) == 40
    assert names.attributes[11] == "such 12"


def test_the_released_map(reference: Callable[[str], Path]) -> None:
    names = load_label_map(
        reference("data/vinvl/label_map.json"), classes=X152_C4.classes, attributes=X152_C4.attributes
    )
    assert names.classes[:4] == ("ad", "adult", "advertisement", "air")
    assert len(names.classes) == 1594 and len(names.attributes) == 524


def test_the_inverse_form_and_a_background_give_the_same(tmp_path: Path) -> None:
    plain = load_label_map(write_label_map(tmp_path / "map.json"), classes=SMALL.classes, attributes=SMALL.attributes)
    table = json.loads((tmp_path / "map.json").read_text())
    inverse = {
        "idx_to_label": {str(index): name for name, index in table["label_to_idx"].items()} | {"0": "__background__"},
        "idx_to_attribute": {str(index): name for name, index in table["attribute_to_idx"].items()},
    }
    (tmp_path / "inverse.json").write_text(json.dumps(inverse))
    found = load_label_map(tmp_path / "inverse.json", classes=SMALL.classes, attributes=SMALL.attributes)
    assert found == plain and found.digest() == plain.digest()


def test_another_size_names_both(tmp_path: Path) -> None:
    path = write_label_map(tmp_path / "map.json", classes=39)
    with pytest.raises(InputError, match=r"names 39 classes, the weights have 40"):
        load_label_map(path, classes=SMALL.classes, attributes=SMALL.attributes)
    path = write_label_map(tmp_path / "map.json", attributes=400)
    with pytest.raises(InputError, match=r"names 400 attributes, the weights have 12"):
        load_label_map(path, classes=SMALL.classes, attributes=SMALL.attributes)


def test_a_gap_is_named(tmp_path: Path) -> None:
    path = write_label_map(tmp_path / "map.json")
    table = json.loads(path.read_text())
    table["label_to_idx"]["thing 7"] = 99
    path.write_text(json.dumps(table))
    with pytest.raises(DamagedFileError, match="names no label 7"):
        load_label_map(path, classes=SMALL.classes, attributes=SMALL.attributes)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"label_to_idx": [1]}', '{"label_to_idx": {"a": "1"}}', "\x80"])
def test_what_is_no_label_map_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(MvptrError, match=r"map\.json"):
        load_label_map(path, classes=SMALL.classes, attributes=SMALL.attributes)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read a label map"):
        load_label_map(tmp_path / "none.json", classes=SMALL.classes, attributes=SMALL.attributes)
