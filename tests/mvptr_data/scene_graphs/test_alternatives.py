"""Other readings of a parse: those wanted are among them, and all are parses."""

from __future__ import annotations

import pytest

from mvptr_data.scene_graphs.alternatives import alternatives, is_tree
from tests.mvptr_data.scene_graphs.silver_notation import silver, written

#: What is parsed wrongly, and how it must be read for the gold graph's sake: each one change away.
READINGS = {
    "preposition under an earlier noun": (
        "wall/NN/ROOT>0 with/IN/prep>0 pictures/NNS/pobj>1 in/IN/prep>2 frames/NNS/pobj>3",
        "wall/NN/ROOT>0 with/IN/prep>0 pictures/NNS/pobj>1 in/IN/prep>0 frames/NNS/pobj>3",
    ),
    "preposition under the verb": (
        "man/NN/ROOT>0 riding/VBG/acl>0 waves/NNS/dobj>1 on/IN/prep>2 boards/NNS/pobj>3",
        "man/NN/ROOT>0 riding/VBG/acl>0 waves/NNS/dobj>1 on/IN/prep>1 boards/NNS/pobj>3",
    ),
    "clause under the person": (
        "man/NN/ROOT>0 in/IN/prep>0 chairs/NNS/pobj>1 wearing/VBG/acl>2 hats/NNS/dobj>3",
        "man/NN/ROOT>0 in/IN/prep>0 chairs/NNS/pobj>1 wearing/VBG/acl>0 hats/NNS/dobj>3",
    ),
    "clause under the verb": (
        "man/NN/nsubj>1 sits/VBZ/ROOT>1 in/IN/prep>1 chairs/NNS/pobj>2 wearing/VBG/acl>3 hats/NNS/dobj>4",
        "man/NN/nsubj>1 sits/VBZ/ROOT>1 in/IN/prep>1 chairs/NNS/pobj>2 wearing/VBG/advcl>1 hats/NNS/dobj>4",
    ),
    "conjunct with its conjunction": (
        "rooms/NNS/ROOT>0 with/IN/prep>0 beds/NNS/pobj>1 and/CC/cc>0 lamps/NNS/conj>0",
        "rooms/NNS/ROOT>0 with/IN/prep>0 beds/NNS/pobj>1 and/CC/cc>2 lamps/NNS/conj>2",
    ),
    "modifier of the whole name": (
        "white/JJ/amod>1 tank/NN/compound>2 top/NN/ROOT>2",
        "white/JJ/amod>2 tank/NN/compound>2 top/NN/ROOT>2",
    ),
    "list in place of an apposition": (
        "beds/NNS/ROOT>0 ,/,/punct>0 lamps/NNS/appos>0",
        "beds/NNS/ROOT>0 ,/,/punct>0 lamps/NNS/conj>0",
    ),
    "noun that is a verb": (
        "a/DT/det>2 cat/NN/compound>2 sits/NNS/ROOT>2 on/IN/prep>2 mats/NNS/pobj>3",
        "a/DT/det>1 cat/NN/nsubj>2 sits/VBZ/ROOT>2 on/IN/prep>2 mats/NNS/pobj>3",
    ),
    "noun that is a verb with an object": (
        "a/DT/det>4 man/NN/compound>4 walks/NNS/compound>4 big/JJ/amod>4 dogs/NNS/ROOT>4 near/IN/prep>4 him/PRP/pobj>5",
        "a/DT/det>1 man/NN/nsubj>2 walks/VBZ/ROOT>2 big/JJ/amod>4 dogs/NNS/dobj>2 near/IN/prep>2 him/PRP/pobj>5",
    ),
    "noun that is a participle": (
        "mats/NNS/ROOT>0 with/IN/prep>0 a/DT/det>4 cat/NN/compound>4 skateboarding/NN/pobj>1",
        "mats/NNS/ROOT>0 with/IN/prep>0 a/DT/det>3 cat/NN/pobj>1 skateboarding/VBG/acl>3",
    ),
    "verb that is a noun": (
        "green/JJ/amod>1 tree/NN/nsubj>2 leaves/VBZ/ROOT>2 behind/IN/prep>2 vases/NNS/pobj>3",
        "green/JJ/amod>2 tree/NN/compound>2 leaves/NNS/ROOT>2 behind/IN/prep>2 vases/NNS/pobj>3",
    ),
    "verb that is a noun before another": (
        "red/JJ/amod>1 dog/NN/nsubj>2 leash/VBP/ROOT>2 hook/NN/dobj>2 on/IN/prep>2 walls/NNS/pobj>4",
        "red/JJ/amod>3 dog/NN/compound>3 leash/NN/compound>3 hook/NN/ROOT>3 on/IN/prep>3 walls/NNS/pobj>4",
    ),
}


@pytest.mark.parametrize("name", READINGS)
def test_the_right_reading_is_among_them(name: str) -> None:
    wrong, right = READINGS[name]
    assert right in [written(reading) for reading in alternatives(silver(wrong))]


@pytest.mark.parametrize("text", [text for pair in READINGS.values() for text in pair])
def test_all_are_other_trees_over_the_same_words(text: str) -> None:
    parse = silver(text)
    readings = list(alternatives(parse))
    assert parse not in readings
    for reading in readings:
        assert reading.words == parse.words
        assert is_tree(reading.heads)


def test_what_one_does_somewhere_is_not_made_what_is_there() -> None:
    parse = silver("man/NN/ROOT>0 eating/VBG/acl>0 at/IN/prep>1 tables/NNS/pobj>2")
    assert all(reading.heads[2] == 1 for reading in alternatives(parse))


def test_a_verb_agrees_with_its_subject() -> None:
    singular = silver("store/NN/compound>2 front/NN/compound>2 window/NN/ROOT>2")
    assert all("VBP" not in reading.tags for reading in alternatives(singular))
    plural = silver("stores/NNS/compound>2 front/NN/compound>2 windows/NNS/ROOT>2")
    assert any("VBP" in reading.tags for reading in alternatives(plural))


@pytest.mark.parametrize(
    ("heads", "tree"),
    [((0,), True), ((1, 1, 1), True), ((1, 0), False), ((2, 3, 2, 2), False), ((1, 2, 0), False), ((0, 1), True)],
)
def test_trees(heads: tuple[int, ...], tree: bool) -> None:
    assert is_tree(heads) == tree
