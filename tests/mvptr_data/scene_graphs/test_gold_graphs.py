"""FACTUAL's gold graphs: reading, normal form, conventions, scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.errors import DamagedFileError, InputError
from mvptr_data.scene_graphs import CaptionParser, SceneGraph
from mvptr_data.scene_graphs.gold_graphs import Fact, facts_of, mean_score, read_facts, read_gold, score
from mvptr_data.scene_graphs.phrases import build_graph
from tests.mvptr_data.scene_graphs.given_parses import findings_of

GRAPHS = {
    "( pole )": {("pole",)},
    "( women , hold , umbrellas )": {("woman",), ("umbrella",), ("woman", "hold", "umbrella")},
    "( boats , is , 5 )": {("boat",), ("boat", "5")},
    "( boats , is , five )": {("boat",), ("boat", "5")},
    "( fire hydrant , is , red )": {("hydrant",), ("hydrant", "fire"), ("hydrant", "red")},
    "( shirt , is , light blue )": {("shirt",), ("shirt", "light"), ("shirt", "blue")},
    "( people , is , group of )": {("people",), ("people", "group")},
    "( cat , is , laying down )": {("cat",), ("cat", "lay")},
    "( bus , is , double-decker )": {("bus",), ("bus", "double"), ("bus", "decker")},
    "( door , is , up )": {("door",), ("door", "up")},
    "( car , on the side of , road ) , ( car , is , Red )": {
        ("car",),
        ("road",),
        ("car", "red"),
        ("car", "on side of", "road"),
    },
}


@pytest.mark.parametrize("text", GRAPHS)
def test_graphs_are_read_in_normal_form(text: str) -> None:
    assert read_facts(text) == GRAPHS[text]


@pytest.mark.parametrize("text", ["", "( a , b )", "( a , on , b , c )", "( , on , b )"])
def test_what_is_no_graph_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(DamagedFileError, match=r"dev\.csv, line 7"):
        read_facts(text, "dev.csv, line 7")


def test_a_file_is_read_row_by_row(tmp_path: Path) -> None:
    file = tmp_path / "gold.csv"
    file.write_text(
        'image_id,region_id,caption,scene_graph\n1,10,"a red, wet dog .","( dog , is , red )"\n2,20,a pole,( pole )\n'
    )
    first, second = read_gold(file)
    assert (first.image_id, first.region_id, first.caption) == ("1", "10", "a red, wet dog .")
    assert first.facts == {("dog",), ("dog", "red")}
    assert second.facts == {("pole",)}


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nonesuch"):
        read_gold(tmp_path / "nonesuch.csv")
    other = tmp_path / "other.csv"
    other.write_text("caption,graph\na pole,( pole )\n")
    with pytest.raises(DamagedFileError, match="scene_graph"):
        read_gold(other)


#: Parse, facts by the specification, facts in FACTUAL's form.
CONVENTIONS: dict[str, tuple[str, set[Fact], set[Fact]]] = {
    "places on things": (
        "cars/NNS/ROOT>0 on/IN/prep>0 the/DT/det>4 left/JJ/amod>4 side/NN/pobj>1 of/IN/prep>4 roads/NNS/pobj>5",
        {("car",), ("side",), ("road",), ("side", "left"), ("car", "on", "side"), ("side", "of", "road")},
        {("car",), ("road",), ("car", "on left side of", "road")},
    ),
    "a place of something stays where nothing is on it": (
        "sides/NNS/ROOT>0 of/IN/prep>0 roads/NNS/pobj>1",
        {("side",), ("road",), ("side", "of", "road")},
        {("side",), ("road",), ("road", "have", "side")},
    ),
    "collections": (
        "a/DT/det>2 large/JJ/amod>2 group/NN/ROOT>2 of/IN/prep>2 people/NNS/pobj>3 on/IN/prep>2 streets/NNS/pobj>5",
        {
            ("group",),
            ("people",),
            ("street",),
            ("group", "large"),
            ("group", "of", "people"),
            ("group", "on", "street"),
        },
        {("people",), ("street",), ("people", "group"), ("people", "large"), ("people", "on", "street")},
    ),
    "containers": (
        "plates/NNS/ROOT>0 of/IN/prep>0 food/NN/pobj>1",
        {("plate",), ("food",), ("plate", "of", "food")},
        {("plate",), ("food",), ("plate", "have", "food")},
    ),
    "parts": (
        "legs/NNS/ROOT>0 of/IN/prep>0 men/NNS/pobj>1",
        {("leg",), ("man",), ("leg", "of", "man")},
        {("leg",), ("man",), ("man", "have", "leg")},
    ),
    "agents": (
        "bridges/NNS/ROOT>0 surrounded/VBN/acl>0 by/IN/agent>1 trees/NNS/pobj>2",
        {("bridge",), ("tree",), ("bridge", "surround by", "tree")},
        {("bridge",), ("tree",), ("tree", "surround", "bridge")},
    ),
    "what covers": (
        "hills/NNS/ROOT>0 covered/VBN/acl>0 in/IN/prep>1 snow/NN/pobj>2",
        {("hill",), ("snow",), ("hill", "cover in", "snow")},
        {("hill",), ("snow",), ("snow", "cover", "hill")},
    ),
    "what a container is full of": (
        "a/DT/det>1 jar/NN/ROOT>1 full/JJ/amod>1 of/IN/prep>2 sand/NN/pobj>3",
        {("jar",), ("sand",), ("jar", "full"), ("jar", "full of", "sand")},
        {("jar",), ("sand",), ("jar", "have", "sand")},
    ),
    "a collection that is no attribute": (
        "rows/NNS/ROOT>0 of/IN/prep>0 chairs/NNS/pobj>1 on/IN/prep>0 sand/NN/pobj>3",
        {("row",), ("chair",), ("sand",), ("row", "of", "chair"), ("row", "on", "sand")},
        {("chair",), ("sand",), ("chair", "on", "sand")},
    ),
    "clothes": (
        "a/DT/det>1 man/NN/ROOT>1 in/IN/prep>1 shorts/NNS/pobj>2 in/IN/prep>1 snow/NN/pobj>4",
        {("man",), ("shorts",), ("snow",), ("man", "in", "shorts"), ("man", "in", "snow")},
        {("man",), ("shorts",), ("snow",), ("man", "wear", "shorts"), ("man", "in", "snow")},
    ),
    "owners": (
        "a/DT/det>1 man/NN/ROOT>1 holding/VBG/acl>1 his/PRP$/poss>4 hat/NN/dobj>2",
        {("man",), ("hat",), ("man", "have", "hat"), ("man", "hold", "hat")},
        {("man",), ("hat",), ("man", "hold", "hat")},
    ),
    "owners that are named": (
        "a/DT/det>1 man/NN/poss>3 's/POS/case>1 hat/NN/ROOT>3",
        {("man",), ("hat",), ("man", "have", "hat")},
        {("man",), ("hat",), ("man", "have", "hat")},
    ),
    "vague numbers": (
        "several/JJ/amod>2 red/JJ/amod>2 birds/NNS/ROOT>2",
        {("bird",), ("bird", "several"), ("bird", "red")},
        {("bird",), ("bird", "red")},
    ),
    "words": (
        "a/DT/det>1 guy/NN/ROOT>1 lying/VBG/acl>1 beneath/IN/prep>2 a/DT/det>6 wood/NN/compound>6 bench/NN/pobj>3",
        {("guy",), ("bench",), ("bench", "wood"), ("guy", "lie beneath", "bench")},
        {("person",), ("bench",), ("bench", "wooden"), ("person", "lay under", "bench")},
    ),
    "who is by something is no agent": (
        "men/NNS/ROOT>0 standing/VBG/acl>0 by/IN/prep>1 trees/NNS/pobj>2",
        {("man",), ("tree",), ("man", "stand by", "tree")},
        {("man",), ("tree",), ("man", "stand by", "tree")},
    ),
}


def graph_of(parse: str) -> SceneGraph:
    findings = findings_of(parse)
    return build_graph(findings, " ".join(findings.caption.words))


@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions(name: str) -> None:
    parse, specified, factual = CONVENTIONS[name]
    assert facts_of(graph_of(parse), conventions=False) == specified
    assert facts_of(graph_of(parse)) == factual


def test_scores() -> None:
    wanted = frozenset({("dog",), ("dog", "red"), ("dog", "wet")})
    assert score(wanted, wanted).f1 == score(wanted, wanted).set_match == 1
    half = score(frozenset({("dog",), ("cat",)}), wanted)
    assert (half.set_match, half.precision, half.recall) == (0, 1 / 2, 1 / 3)
    assert half.f1 == pytest.approx(0.4)
    assert score(frozenset(), wanted).f1 == score(wanted, frozenset()).f1 == 0
    assert mean_score([half, score(wanted, wanted)]).f1 == pytest.approx(0.7)


FACTS = st.frozensets(st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple), max_size=6)


@given(FACTS, FACTS)
def test_f1_is_symmetric_in_bounds_and_one_for_equals_only(said: frozenset[Fact], wanted: frozenset[Fact]) -> None:
    there, back = score(said, wanted), score(wanted, said)
    assert there.f1 == back.f1
    assert there.precision == back.recall
    assert 0 <= there.f1 <= 1
    assert (there.f1 == 1) == (said == wanted) == (there.set_match == 1)


def test_factual_dev(reference: Callable[[str], Path], bundled_parser: CaptionParser) -> None:
    gold = read_gold(reference("data/scene_graphs/factual_dev.csv"))
    assert len(gold) == 1000
    graphs = bundled_parser.graphs([each.caption for each in gold])
    reached = mean_score([score(facts_of(graph), each.facts) for graph, each in zip(graphs, gold, strict=True)])
    assert reached.f1 >= 0.899
    assert reached.set_match >= 0.713
