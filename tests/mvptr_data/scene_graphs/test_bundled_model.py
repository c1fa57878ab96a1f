"""The model that ships: its size and files, its agreement with its teacher, and SceneGraphParser on it."""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from pathlib import Path

import pytest
import sng_parser
import spacy

from mvptr_data.scene_graphs.evaluate import measure_agreement
from mvptr_data.scene_graphs.pipeline import BUNDLED_MODEL, load_pipeline
from mvptr_data.scene_graphs.silver import lower_case, split_silver, strip_final_period
from mvptr_data.scene_graphs.train import MAX_BYTES

FILES = sorted(file for file in BUNDLED_MODEL.rglob("*") if file.is_file())


def test_it_is_small() -> None:
    assert 0 < sum(file.stat().st_size for file in FILES) <= MAX_BYTES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(BUNDLED_MODEL).as_posix())
def test_it_has_no_pickle(file: Path) -> None:
    try:
        operations = list(pickletools.genops(file.read_bytes()))
    except (ValueError, UnicodeDecodeError, IndexError):
        return
    assert operations[-1][0].name != "STOP" or len(operations) <= 2


def test_its_meta_says_where_it_comes_from() -> None:
    meta = spacy.load(BUNDLED_MODEL).meta
    assert "scene_graphs.train" in meta["training"]["command"]
    assert meta["training"]["sha256"].keys() == {"silver", "gold", "left_out"}
    assert all(len(digest) == 64 for digest in meta["training"]["sha256"].values())
    assert meta["performance"]["as written"]["las"] >= 0.93
    assert "MIT" in meta["license"]


def test_the_words_of_captions_are_ready_before_the_first_caption() -> None:
    vocabulary = load_pipeline().vocab
    assert all(word in vocabulary for word in ("man", "surfboard", "skateboarding", "black"))
    assert "surfboarding-hippopotamus" not in vocabulary


def test_it_agrees_with_its_teacher_on_held_out_captions(reference: Callable[[str], Path]) -> None:
    _, held_out = split_silver(reference("data/parser/silver.jsonl.gz"))
    nlp = spacy.load(BUNDLED_MODEL)
    written = measure_agreement(nlp, held_out[::3])
    bare = measure_agreement(nlp, [lower_case(strip_final_period(parse)) for parse in held_out[::3]])
    assert written.las >= 0.93
    assert bare.las >= 0.93
    assert written.uas >= written.las


def test_scene_graph_parser_runs_on_it() -> None:
    parser = sng_parser.Parser("spacy", model=str(BUNDLED_MODEL))
    ride = parser.parse("A man is riding a brown horse.")
    assert [entity["head"] for entity in ride["entities"]] == ["man", "horse"]
    assert [(r["subject"], r["lemma_relation"], r["object"]) for r in ride["relations"]] == [(0, "ride", 1)]
    plate = parser.parse("Two women sit at a table with a plate of food.")
    assert {entity["lemma_head"] for entity in plate["entities"]} >= {"woman", "table", "plate", "food"}
    assert plate["relations"]
