"""Silver parses: reading, splitting, spelling, mending, and training on them."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Mapping
from pathlib import Path

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.errors import DamagedFileError, InputError
from mvptr_data.scene_graphs import load_parser, repairs, train
from mvptr_data.scene_graphs.silver import (
    SilverParse,
    add_final_period,
    frequent_words,
    is_held_out,
    lower_case,
    merge_hyphens,
    read_silver,
    split_silver,
    strip_final_period,
    vary,
)
from tests.mvptr_data.scene_graphs.gold_phrases import read_gold
from tests.mvptr_data.scene_graphs.silver_notation import as_silver, silver


def arcs(parse: SilverParse) -> list[tuple[str, str, str, str]]:
    """(word, tag, label, head's word) of every token."""
    heads = [parse.words[head] for head in parse.heads]
    return list(zip(parse.words, parse.tags, parse.deps, heads, strict=True))


DOG = silver("A/DT/det>1 dog/NN/nsubj>2 runs/VBZ/ROOT>2 ././punct>2")


def test_hyphened_words_are_one_token() -> None:
    parts = SilverParse(
        source="",
        words=("a", "double", "-", "decker", "bus"),
        spaces=(True, False, False, True, False),
        tags=("DT", "JJ", "HYPH", "NN", "NN"),
        heads=(4, 3, 3, 4, 4),
        deps=("det", "amod", "punct", "compound", "ROOT"),
    )
    merged = merge_hyphens(parts)
    assert arcs(merged) == [
        ("a", "DT", "det", "bus"),
        ("double-decker", "NN", "compound", "bus"),
        ("bus", "NN", "ROOT", "bus"),
    ]
    assert merged.text() == parts.text() == "a double-decker bus"


def test_a_free_hyphen_stays() -> None:
    parse = silver("a/DT/det>1 dog/NN/ROOT>1 -/:/punct>1 cat/NN/appos>1")
    assert merge_hyphens(parse) == parse


def test_final_periods_come_and_go() -> None:
    bare = strip_final_period(DOG)
    assert bare.words == ("A", "dog", "runs")
    assert arcs(add_final_period(bare)) == arcs(DOG)
    assert strip_final_period(bare) == bare
    assert add_final_period(DOG) == DOG


def test_one_caption_is_never_in_both_parts() -> None:
    assert is_held_out(DOG) == is_held_out(lower_case(DOG)) == is_held_out(strip_final_period(DOG))


@given(st.integers(0, 10_000))
def test_spellings_keep_the_parse(seed: int) -> None:
    varied = vary(DOG, random.Random(seed))
    assert [word.lower() for word in varied.words[:3]] == ["a", "dog", "runs"]
    assert varied.heads[:3] == DOG.heads[:3]
    assert len({len(column) for column in (varied.words, varied.spaces, varied.tags, varied.heads, varied.deps)}) == 1


REPAIRS = {
    "mend_verbs": (
        "a/DT/det>2 cat/NN/compound>2 sits/NNS/ROOT>2 on/IN/prep>2 mats/NNS/pobj>3",
        "a/DT/det>1 cat/NN/nsubj>2 sits/VBZ/ROOT>2 on/IN/prep>2 mats/NNS/pobj>3",
    ),
    "mend_compounds": (
        "a/DT/det>1 stop/NN/nsubj>2 sign/NN/ROOT>2 on/IN/prep>2 poles/NNS/pobj>3",
        "a/DT/det>2 stop/NN/compound>2 sign/NN/ROOT>2 on/IN/prep>2 poles/NNS/pobj>3",
    ),
    "mend_commands": (
        "stop/VB/ROOT>0 sign/NN/dobj>0 on/IN/prep>0 poles/NNS/pobj>2",
        "stop/NN/compound>1 sign/NN/ROOT>1 on/IN/prep>1 poles/NNS/pobj>2",
    ),
    "mend_nouns": (
        "trees/NNS/ROOT>0 by/IN/prep>0 trash/VB/compound>3 cans/NNS/pobj>1",
        "trees/NNS/ROOT>0 by/IN/prep>0 trash/NN/compound>3 cans/NNS/pobj>1",
    ),
    "mend_participles": ("men/NNS/ROOT>0 skiing/NN/acl>0", "men/NNS/ROOT>0 skiing/VBG/acl>0"),
    "mend_lists": (
        "rooms/NNS/ROOT>0 with/IN/prep>0 beds/NNS/pobj>1 ,/,/punct>2 chairs/NNS/appos>0 and/CC/cc>4 lamps/NNS/conj>4",
        "rooms/NNS/ROOT>0 with/IN/prep>0 beds/NNS/pobj>1 ,/,/punct>2 chairs/NNS/conj>2 and/CC/cc>4 lamps/NNS/conj>4",
    ),
    "mend_lists with": (
        "rooms/NNS/ROOT>0 with/IN/prep>0 beds/NNS/pobj>1 ,/,/punct>0 chairs/NNS/conj>0 and/CC/cc>4 lamps/NNS/conj>4",
        "rooms/NNS/ROOT>0 with/IN/prep>0 beds/NNS/pobj>1 ,/,/punct>2 chairs/NNS/conj>2 and/CC/cc>4 lamps/NNS/conj>4",
    ),
    "mend_places": (
        "men/NNS/nsubj>1 fly/VBP/ROOT>1 kites/NNS/dobj>1 at/IN/prep>2 beaches/NNS/pobj>3",
        "men/NNS/nsubj>1 fly/VBP/ROOT>1 kites/NNS/dobj>1 at/IN/prep>1 beaches/NNS/pobj>3",
    ),
}


@pytest.mark.parametrize("name", REPAIRS)
def test_repair(name: str) -> None:
    wrong, right = (silver(text) for text in REPAIRS[name])
    assert getattr(repairs, name.split()[0])(wrong) == right
    assert getattr(repairs, name.split()[0])(right) == right
    assert repairs.mend(wrong) == right


def test_what_is_right_stays() -> None:
    for text in (
        "close/VB/ROOT>0 up/RP/prt>0 of/IN/prep>0 dogs/NNS/pobj>2",
        "the/DT/det>1 man/NN/nsubj>2 is/VBZ/ROOT>2 a/DT/det>4 player/NN/attr>2",
        "men/NNS/nsubj>1 fly/VBP/ROOT>1 kites/NNS/dobj>1 in/IN/prep>2 the/DT/det>5 sky/NN/pobj>3",
    ):
        assert repairs.mend(silver(text)) == silver(text)


def write_silver(path: Path, lines: list[str]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
    return path


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"words": ["a"]}', json.dumps({k: ["a"] * (k == "words") for k in REPAIRS})]
)
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(DamagedFileError, match="line 1"):
        list(read_silver(write_silver(tmp_path / "silver.jsonl.gz", [line])))


def test_no_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--silver"):
        list(read_silver(tmp_path / "none.gz"))


def as_line(parse: SilverParse) -> str:
    columns = ("words", "spaces", "tags", "heads", "deps")
    return json.dumps({"src": parse.source, **{name: getattr(parse, name) for name in columns}})


@pytest.fixture(scope="module")
def silver_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parses of the gold examples; the bundled parser stands in for the teacher, so that no reference data is needed."""
    captions = [f"{caption[:-1]} near {place}" for caption, _ in read_gold() for place in "ab"]
    parses = [as_silver(caption) for caption in load_parser().parse(captions)]
    return write_silver(tmp_path_factory.mktemp("silver") / "silver.jsonl.gz", [as_line(parse) for parse in parses])


def write_graphs(path: Path, graphs: Mapping[str, str]) -> Path:
    """A FACTUAL file of captions and their graphs."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image_id", "region_id", "caption", "scene_graph"])
        rows.writerows([1, number, caption, graph] for number, (caption, graph) in enumerate(graphs.items()))
    return path


def test_what_is_trained_on(silver_file: Path, tmp_path: Path) -> None:
    training, held_out = split_silver(silver_file)
    parses, measured = train.Sources(silver=silver_file).parses()
    assert measured == held_out
    assert parses == [repairs.mend(parse) for parse in training]
    plate = next(parse for parse in parses if parse.words[:4] == ("a", "plate", "of", "food"))
    gold = write_graphs(
        tmp_path / "gold.csv",
        {plate.text(): "( food , with , broccoli ) , ( food , with , fork ) , ( plate , of , food )"},
    )
    unseen = write_graphs(tmp_path / "unseen.csv", {parses[0].text().upper() + " .": "( man )"})
    sources = train.Sources(silver=silver_file, gold=gold, left_out=unseen)
    corrected, measured = sources.parses()
    assert measured == held_out
    assert parses[0] not in corrected
    assert len(corrected) == len(parses) - 1
    (changed,) = [parse for parse in corrected if parse not in parses]
    assert changed.words == plate.words
    assert changed.words[changed.heads[4]] == "food"
    assert set(sources.digests()) == {"silver", "gold", "left_out"}


def test_frequent_words() -> None:
    assert frequent_words([DOG, lower_case(DOG), strip_final_period(DOG)], times=3) == ["a", "dog", "runs"]


def train_briefly(silver_file: Path, output: Path) -> None:
    train.main(
        ["--silver", str(silver_file), "--output", str(output), "--epochs", "2", "--width", "16", "--depth", "1"]
    )


def test_training_writes_a_pipeline_that_parses(
    silver_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert split_silver(silver_file)[1]
    output = tmp_path / "model"
    train_briefly(silver_file, output)
    assert "epoch 2 of 2" in capsys.readouterr().out
    nlp = spacy.load(output)
    assert nlp.pipe_names == ["tok2vec", "tagger", "parser", "attribute_ruler", "lemmatizer"]
    assert nlp("dogs run")[0].tag_ in nlp.pipe_labels["tagger"]
    words = json.loads((output / "vocab" / "strings.json").read_text())
    assert "man" in words
    assert "surfboard" not in words
    assert not list(tmp_path.glob("*.part"))


def test_training_again_gives_the_same_bytes(silver_file: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("first", "second")]
    for output in outputs:
        train_briefly(silver_file, output)
    first, second = (
        {file.relative_to(output): file.read_bytes() for file in output.rglob("*") if file.is_file()}
        for output in outputs
    )
    assert first == second
