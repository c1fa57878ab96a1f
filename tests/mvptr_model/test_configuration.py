"""Presets, what is refused, and the round trip through JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mvptr_data.errors import DamagedFileError, FormatVersionError, InputError
from mvptr_model.configuration import FIRST_STAGE_LOSSES, LOSSES, ModelConfiguration


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_json_gives_a_preset_back(preset: str) -> None:
    configuration = ModelConfiguration.preset(preset, layers=5, wpg_layer=2)
    assert ModelConfiguration.from_json(configuration.to_json(), "here") == configuration
    assert json.loads(configuration.to_json())["version"] == 1


def test_the_presets_differ_where_paper_and_code_do() -> None:
    paper, official = ModelConfiguration.preset("paper"), ModelConfiguration.preset("official")
    assert paper == ModelConfiguration()
    assert official.table_rows == 86_051
    assert "mcr_s" in paper.losses
    assert "mcr_s" not in official.losses
    assert (paper.match_concepts, official.match_concepts) == (True, False)
    assert (paper.grounding_layer, official.grounding_layer) == (2, 5)


def test_merged_attention_grounds_as_far_from_its_end() -> None:
    merged = ModelConfiguration(merged_attention=True, losses=("mcr_v", "mcr_s", "wpg", "itm", "mlm"))
    assert (merged.joint_layers, merged.grounding_layer) == (12, 8)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": 770}, "12 heads"),
        ({"layers": 0}, "layers"),
        ({"layers": True}, "layers"),
        ({"phrase_rows": -1}, "phrase_rows"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
        ({"dropout": "0.1"}, "dropout"),
        ({"temperature": 0}, "temperature"),
        ({"max_similarity_scale": float("inf")}, "max_similarity_scale"),
        ({"wpg_layer": 7}, "wpg_layer"),
        ({"match_concepts": 1}, "match_concepts"),
        ({"negatives": "gathered"}, "negatives"),
        ({"wpg_negatives": None}, "wpg_negatives"),
        ({"losses": ("mcr_v", "mcr")}, "losses"),
        ({"losses": ("mlm", "mlm")}, "losses"),
        ({"losses": "mlm"}, "losses"),
        ({"inputs": ("w", "c", "t")}, "inputs"),
        ({"inputs": ("w", "r", "t")}, "mcr_s"),
        ({"inputs": ("w", "c", "r")}, "mcr_v"),
        ({"inputs": ("w", "r"), "losses": ("wpg", "mlm")}, "wpg"),
        ({"merged_attention": True}, "vsc"),
        ({"color": "red"}, "color"),
    ],
)
def test_what_cannot_be_used_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        ModelConfiguration.preset("paper", **changes)


def test_an_unknown_preset() -> None:
    with pytest.raises(InputError, match="'large'"):
        ModelConfiguration.preset("large")


def test_stages() -> None:
    configuration = ModelConfiguration()
    assert configuration.learns(1) == set(FIRST_STAGE_LOSSES)
    assert configuration.learns(2) == set(LOSSES)
    with pytest.raises(InputError, match="stage is 3"):
        configuration.learns(3)
    with pytest.raises(InputError, match="stage 1 has none"):
        ModelConfiguration(losses=("mlm",)).learns(1)


def test_other_files_are_refused() -> None:
    with pytest.raises(DamagedFileError, match=r"model\.json"):
        ModelConfiguration.from_json(b"[1]", "model.json")
    with pytest.raises(FormatVersionError, match="version 2"):
        ModelConfiguration.from_json(b'{"version": 2}', "model.json")
    with pytest.raises(InputError, match="no setting color"):
        ModelConfiguration.from_json(b'{"version": 1, "color": 3}', "model.json")
