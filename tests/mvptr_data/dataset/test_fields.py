from __future__ import annotations

import json
from pathlib import Path

import pytest

from mvptr_data.dataset.fields import FieldState, claim, claim_generation, configuration_differences, load_state
from mvptr_data.errors import ConfigurationMismatchError, DamagedFileError, FormatVersionError
from mvptr_data.storage import Store


def test_differences_name_the_path_and_both_values() -> None:
    stored = {"detector": {"name": "compact", "threshold": 0.3}, "exif": False}
    asked = {"detector": {"name": "compact", "threshold": 0.5}, "split": "val", "exif": False}
    assert configuration_differences(stored, asked) == ["detector.threshold: 0.3 -> 0.5", "split: None -> 'val'"]
    assert configuration_differences(stored, dict(stored)) == []


def test_a_field_belongs_to_the_first_configuration(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    assert load_state(store, "regions") is None
    state = claim(store, "regions", {"threshold": 0.3})
    assert claim(store, "regions", {"threshold": 0.3}) == state == load_state(store, "regions")
    with pytest.raises(ConfigurationMismatchError, match=r"threshold: 0\.3 -> 0\.5"):
        claim(store, "regions", {"threshold": 0.5})


def test_a_cheap_field_starts_a_new_generation(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    generations = [claim_generation(store, "text", {"vocabulary": name}).generation for name in "aabb"]
    assert generations == [0, 0, 1, 1]
    assert load_state(store, "text") == FieldState(configuration={"vocabulary": "b"}, generation=1)


def test_what_was_published_is_never_written_over_though_the_state_was_removed(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    claim_generation(store, "text", {"vocabulary": "a"})
    store.write("text/00003.g2.tar", b"published")
    store.remove("text/field.json")
    assert claim_generation(store, "text", {"vocabulary": "b"}).generation == 3


def test_a_changed_state_is_not_trusted(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    claim(store, "regions", {"threshold": 0.3})
    file = tmp_path / "regions/field.json"
    file.write_text(file.read_text().replace("0.3", "0.4"))
    with pytest.raises(DamagedFileError, match="digest"):
        load_state(store, "regions")


@pytest.mark.parametrize("generation", ["1/../../../outside", -1, True, 2**31, 1.0, None, [1]])
def test_a_generation_that_is_no_number_leads_nowhere(tmp_path: Path, generation: object) -> None:
    """It becomes a part of file names, and the digest does not cover it."""
    store = Store.at(tmp_path / "set")
    claim(store, "text", {"vocabulary": "a"})
    file = tmp_path / "set/text/field.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"generation": generation}))
    with pytest.raises(DamagedFileError, match=r"field\.json has .* as generation"):
        load_state(store, "text")


@pytest.mark.parametrize("version", [[1], {"1": 1}, True, 1.0, "1", None])
def test_a_version_is_a_whole_number(tmp_path: Path, version: object) -> None:
    store = Store.at(tmp_path)
    claim(store, "text", {"vocabulary": "a"})
    file = tmp_path / "text/field.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"version": version}))
    with pytest.raises(FormatVersionError, match=r"field\.json"):
        load_state(store, "text")
