"""The backend `sng`: SceneGraphParser's rules on our parses, in our form."""

from __future__ import annotations

import sys
import types

import pytest
import sng_parser
from hypothesis import given, settings
from hypothesis import strategies as st

from mvptr_data.errors import MissingDependencyError
from mvptr_data.scene_graphs import CaptionParser, load_parser, normalize_caption
from mvptr_data.scene_graphs.pipeline import BUNDLED_MODEL
from tests.mvptr_data.scene_graphs.gold_phrases import read_gold

CAPTIONS = [caption for caption, _ in read_gold()]
SNG = load_parser("sng")

PHRASES = {
    "Two young boys in red shirts ride horses": {
        ("boy", "two"),
        ("boy", "young"),
        ("boy", "in", "shirt"),
        ("shirt", "red"),
        ("boy", "ride", "horse"),
    },
    "A black and white fire hydrant": {("hydrant", "black"), ("hydrant", "white"), ("hydrant", "fire")},
    "A plate of food with broccoli and a fork": {
        ("plate", "of", "food"),
        ("plate", "with", "broccoli"),
        ("plate", "with", "fork"),
    },
    "The piano is played by a woman": {("woman", "play", "piano")},
    # Pronouns are no objects, and it misses predicates, verbs without an object, possession and agentless passives.
    "He is riding it": set(),
    "A girl who holds it": set(),
    "There is a dog": set(),
    "The dog is black": set(),
    "A woman is smiling": set(),
    "A boy's bike": set(),
}


@pytest.mark.parametrize("caption", PHRASES)
def test_phrases_have_our_form(caption: str) -> None:
    assert set(SNG.phrases([caption])[0]) == PHRASES[caption]


def test_relations_are_those_of_scene_graph_parser_itself() -> None:
    """Its own pipeline is the bundled one with universal tags, so all but pronouns and lemmas must be the same."""
    original = sng_parser.Parser("spacy", model=str(BUNDLED_MODEL))
    pronouns = {"who", "that", "which", "it", "there"}
    for caption, graph in zip(CAPTIONS, SNG.graphs(CAPTIONS), strict=True):
        wanted = original.parse(caption.lower().rstrip("."))
        heads = [entity["head"].split()[-1] for entity in wanted["entities"]]
        relations = {(heads[r["subject"]], r["relation"], heads[r["object"]]) for r in wanted["relations"]}
        text = graph.text.lower()
        ours = [text[slice(*thing.span)] for thing in graph.objects]
        assert sorted(ours) == sorted(head for head in heads if head not in pronouns)
        assert {
            (ours[r.subject], " ".join(text[start:end] for start, end in r.spans), ours[r.object])
            for r in graph.relations
        } == {r for r in relations if not {r[0], r[2]} & pronouns and r[0] != r[2]}


def test_phrases_and_graphs_say_the_same() -> None:
    for graph, phrases in zip(SNG.graphs(CAPTIONS), SNG.phrases(CAPTIONS), strict=True):
        things = [thing.lemma for thing in graph.objects]
        said = {(things[a.of], a.word) for a in graph.attributes}
        said |= {(things[r.subject], r.predicate, things[r.object]) for r in graph.relations}
        assert said == set(phrases)


def test_the_batch_changes_nothing() -> None:
    alone = [SNG.located_phrases([caption])[0] for caption in CAPTIONS]
    assert SNG.located_phrases(CAPTIONS * 5) == alone * 5


@settings(max_examples=40)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(CAPTIONS), max_size=2).map(" ".join)))
def test_any_text_gives_phrases_inside_it(text: str) -> None:
    length = len(normalize_caption(text))
    for phrase in SNG.located_phrases([text])[0]:
        assert len(phrase.words) in (2, 3)
        assert all(0 <= start < end <= length for start, end in phrase.spans)


def test_configuration_names_the_backend_and_its_versions(bundled_parser: CaptionParser) -> None:
    ours, theirs = bundled_parser.configuration(), SNG.configuration()
    assert (ours["backend"], theirs["backend"], theirs["sng_version"]) == ("rules", "sng", "0.1.0")
    assert ours["digest"] == theirs["digest"]


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sng_parser.backends", None)
    with pytest.raises(MissingDependencyError, match="pip install SceneGraphParser"):
        load_parser("sng")


def test_the_reader_of_sng_files_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sng_parser.backends")
    monkeypatch.setitem(sys.modules, "sng_parser", types.ModuleType("sng_parser"))
    with pytest.raises(MissingDependencyError, match=r"reads \.sng files"):
        load_parser("sng")
