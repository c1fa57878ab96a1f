"""The caption parser as a whole: invariances, spans, hostile captions, other pipelines, errors."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.language import Language

from mvptr_data.errors import InputError
from mvptr_data.scene_graphs import CaptionParser, backends, load_parser, normalize_caption
from mvptr_data.scene_graphs.facts import Findings, Profile
from mvptr_data.scene_graphs.lemmas import Lemmatizer
from mvptr_data.scene_graphs.parser import MAX_CAPTION_TOKENS, MAX_SENTENCE_TOKENS
from mvptr_data.scene_graphs.pipeline import BUNDLED_MODEL
from mvptr_data.scene_graphs.tokens import ParsedCaption
from tests.mvptr_data.scene_graphs.gold_phrases import read_gold

CAPTIONS = [caption for caption, _ in read_gold()]
PARSER = load_parser()


def test_a_final_period_changes_nothing(bundled_parser: CaptionParser) -> None:
    bare = [caption.rstrip(".") for caption in CAPTIONS]
    assert bundled_parser.located_phrases(bare) == bundled_parser.located_phrases(CAPTIONS)
    assert bundled_parser.phrases([caption + " ..." for caption in bare]) == bundled_parser.phrases(CAPTIONS)


def read_coco(file: Path) -> list[str]:
    return [annotation["caption"] for annotation in json.loads(file.read_text(encoding="utf-8"))["annotations"]]


@pytest.mark.parametrize("step", [20, pytest.param(1, marks=pytest.mark.slow)])
def test_a_final_period_changes_nothing_in_coco(
    reference: Callable[[str], Path], bundled_parser: CaptionParser, step: int
) -> None:
    captions = read_coco(reference("data/captions/captions_val2017.json"))[::step]
    bare = [caption.rstrip(". \n") for caption in captions]
    assert bundled_parser.phrases(bare) == bundled_parser.phrases([caption + "." for caption in bare])


def test_the_batch_changes_nothing_in_coco(reference: Callable[[str], Path], bundled_parser: CaptionParser) -> None:
    """In another order the captions meet others in their batches; one by one, none."""
    captions = read_coco(reference("data/captions/captions_val2017.json"))[::25]
    shuffled = random.Random(0).sample(captions, len(captions))
    found = dict(zip(captions, bundled_parser.located_phrases(captions), strict=True))
    assert bundled_parser.located_phrases(shuffled) == [found[caption] for caption in shuffled]
    assert [bundled_parser.located_phrases([caption])[0] for caption in captions[:200]] == [
        found[caption] for caption in captions[:200]
    ]


def test_case_changes_nothing(bundled_parser: CaptionParser) -> None:
    assert bundled_parser.phrases([caption.upper() for caption in CAPTIONS]) == bundled_parser.phrases(CAPTIONS)


def test_the_batch_changes_nothing(bundled_parser: CaptionParser) -> None:
    many = CAPTIONS * 8  # over two batches
    assert bundled_parser.located_phrases(many) == bundled_parser.located_phrases(CAPTIONS) * 8
    alone = [bundled_parser.located_phrases([caption])[0] for caption in CAPTIONS]
    assert alone == bundled_parser.located_phrases(CAPTIONS)


def test_sentences_are_united_and_pronouns_reach_back(bundled_parser: CaptionParser) -> None:
    (phrases,) = bundled_parser.phrases(["A man rides a horse. He is wearing a red hat! The man rides a horse."])
    assert phrases == [("man", "ride", "horse"), ("man", "wear", "hat"), ("hat", "red")]


def test_a_sentence_is_not_split_by_the_parser(bundled_parser: CaptionParser) -> None:
    captions = ["On the street, a pink tree stands behind the flower", "A dog, in the snow, a cat near it."]
    for caption in bundled_parser.parse(captions):
        assert sum(token == head for token, head in enumerate(caption.heads)) == 1


def test_spans_hold_what_the_phrase_is_made_from(bundled_parser: CaptionParser) -> None:
    text = "  A Café.  Two\tboys in\nred shirts are sitting at a table. "
    normal = normalize_caption(text)
    (phrases,) = bundled_parser.located_phrases([text])
    spelled = {phrase.words: [normal[start:end] for start, end in phrase.spans] for phrase in phrases}
    assert spelled[("boy", "sit at", "table")] == ["boys", "sitting", "at", "table"]
    assert spelled[("boy", "two")] == ["Two", "boys"]
    assert spelled[("shirt", "red")] == ["red", "shirts"]


@settings(max_examples=60)
@given(st.one_of(st.text(max_size=80), st.lists(st.sampled_from(CAPTIONS), max_size=3).map(" ".join)))
def test_any_text_gives_phrases_inside_it(text: str) -> None:
    length = len(normalize_caption(text))
    (phrases,) = PARSER.located_phrases([text])
    assert len({phrase.words for phrase in phrases}) == len(phrases)
    order = [(phrase.spans[0][0], phrase.spans[-1][0], phrase.words) for phrase in phrases]
    assert order == sorted(order)
    for phrase in phrases:
        assert len(phrase.words) in (2, 3)
        assert list(phrase.spans) == sorted(set(phrase.spans))
        assert all(0 <= start < end <= length for start, end in phrase.spans)


def test_graphs_and_phrases_say_the_same(bundled_parser: CaptionParser) -> None:
    for graph, phrases in zip(bundled_parser.graphs(CAPTIONS), bundled_parser.phrases(CAPTIONS), strict=True):
        things = [thing.lemma for thing in graph.objects]
        said = {(things[a.of], a.word) for a in graph.attributes}
        said |= {(things[r.subject], r.predicate, things[r.object]) for r in graph.relations}
        assert said == set(phrases)
        spans = [thing.span for thing in graph.objects]
        assert spans == sorted(set(spans))


HOSTILE = {
    "empty": "",
    "white space": " \t\n ",
    "marks": "?! ... ---",
    "emoji": "😀",
    "family": "👩‍👩‍👧‍👦" * 1000,
    "html": "<p>a &amp; b &lt;dog&gt;</p>" * 300,
    "control characters": "\x00a\x01 dog\x7f runs",
    "lone surrogate": "a \ud800 dog",
    "chinese": "一个人骑着马" * 1500,
    "numbers": "1 2 3 4 5 " * 1000,
    "five thousand words": "dog " * 5_000,
    "no verb": "on the under a of",
    "all capitals": "A MAN RIDING A HORSE ON THE BEACH",
    "open quotation marks": "a sign says \"stop the 'dog and ``cat",
    "entities of entities": "&amp;" * 2_000,
    "no spaces": "a" * 10_000,
    "brackets": "(" * 10_000,
    "brackets in words": ("(" * 59 + " ") * 160,
    "faces": ":)" * 5_000,
    "quotes": "'" * 10_000,
    "endless list": "a dog and a cat and " * 500,
    "endless chain": "a cup of " * 1_000,
    "endless clauses": "a dog that sees " * 600,
    "endless pronouns": "a man and them and it and their " * 300,
    "many sentences": "a dog. " * 1_400,
    "combining marks": "a dog" + "\u0301\u0327" * 100_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_captions_end_soon_and_harm_no_neighbour(bundled_parser: CaptionParser, kind: str) -> None:
    start = time.process_time()
    before, _, after = bundled_parser.located_phrases([CAPTIONS[0], HOSTILE[kind], CAPTIONS[0]])
    assert time.process_time() - start < 10  # it takes half a second; unbounded, the worst of these take minutes
    assert before == after
    assert before


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(), max_size=60), min_size=1, max_size=4))
def test_no_text_harms_another(texts: list[str]) -> None:
    """Arbitrary unicode, lone surrogates as well, between two captions, as one batch and one by one."""
    batch = [CAPTIONS[0], *texts, CAPTIONS[1]]
    together = PARSER.located_phrases(batch)
    assert together == [PARSER.located_phrases([text])[0] for text in batch]
    for text, phrases in zip(batch, together, strict=True):
        length = len(normalize_caption(text))
        assert all(0 <= start < end <= length for phrase in phrases for start, end in phrase.spans)


def test_no_at_the_end_denies_nothing(bundled_parser: CaptionParser) -> None:
    plain, ended = bundled_parser.phrases(
        ["A living room filled with furniture", "A living room filled with furniture no"]
    )
    assert ended == plain
    assert ("room", "fill with", "furniture") in plain


@pytest.fixture
def fails_on_unicorns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that meet something they do not know."""
    real = backends.find_facts

    def fail(caption: ParsedCaption, lemmas: Lemmatizer, profile: Profile) -> Findings:
        if "unicorn" in caption.words:
            raise IndexError("list index\nout of range")
        return real(caption, lemmas, profile)

    monkeypatch.setattr(backends, "find_facts", fail)


@pytest.mark.usefixtures("fails_on_unicorns")
def test_a_failure_is_one_captions_alone(bundled_parser: CaptionParser) -> None:
    texts = [CAPTIONS[0], "a red  unicorn", CAPTIONS[1], "", "a dog sees a unicorn"]
    phrases = bundled_parser.located_phrases([CAPTIONS[0], CAPTIONS[1]])
    assert bundled_parser.located_phrases(texts) == [phrases[0], [], phrases[1], [], []]
    found = bundled_parser.phrases_or_faults(texts)
    assert [found[0], found[2], found[3]] == [*phrases, []]
    for fault in (found[1], found[4]):
        assert str(fault) == "parser_error: the caption parser failed: IndexError: list index out of range"
    graphs = bundled_parser.graphs(texts)
    assert [bool(graph.objects) for graph in graphs] == [True, False, True, False, False]
    assert [graph.text for graph in graphs] == [normalize_caption(text) for text in texts]


def test_what_the_machine_lacks_is_no_captions_failure(
    bundled_parser: CaptionParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(backends, "find_facts", fail)
    with pytest.raises(MemoryError):
        bundled_parser.phrases(CAPTIONS)


def test_a_parser_that_would_fail_on_every_caption_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no weights")

    monkeypatch.setattr(backends, "find_facts", fail)
    with pytest.raises(InputError, match=r"'rules' cannot be used: .* ValueError: no weights"):
        load_parser()


def test_what_is_not_read_has_a_reason(bundled_parser: CaptionParser) -> None:
    assert bundled_parser.unread(CAPTIONS[0]) is None
    assert bundled_parser.unread("dog " * MAX_CAPTION_TOKENS) is None
    assert bundled_parser.unread("dog " * 5_000 + "x") == "the text has 20,001 characters; the first 10,000 are read"
    assert bundled_parser.unread("a dog. " * 1_400) == "the text has 2,800 tokens; the first 1,000 are read"


def test_capitals_entities_and_quotation_marks_hide_nothing(bundled_parser: CaptionParser) -> None:
    plain, *odd = bundled_parser.phrases(
        [
            "a man's dog sits by a sign and a cat",
            "A MAN'S DOG SITS BY A SIGN AND A CAT",
            "a man&#39;s dog sits by a sign &amp; a cat",
        ]
    )
    assert ("man", "have", "dog") in plain
    assert odd == [plain, plain]
    assert ("dog", "ride", "bike") in bundled_parser.phrases(['A dog riding a bike" says "hello'])[0]


def test_long_captions_are_read_in_pieces_up_to_a_bound(bundled_parser: CaptionParser) -> None:
    (caption,) = bundled_parser.parse(["a dog sees " * 1_000])
    assert len(caption) == MAX_CAPTION_TOKENS
    roots = [token for token, head in enumerate(caption.heads) if token == head]
    assert len(roots) >= MAX_CAPTION_TOKENS // MAX_SENTENCE_TOKENS
    assert all(
        "a dog sees "[caption.starts[token] % 11 :].startswith(caption.words[token]) for token in range(len(caption))
    )


def test_configuration_is_json_and_tells_what_changes_the_phrases(official_parser: CaptionParser) -> None:
    configuration = PARSER.configuration()
    assert json.loads(json.dumps(configuration)) == configuration
    assert configuration["backend"] == "rules"
    assert configuration["profile"] == "paper"
    assert len(str(configuration["digest"])) == 64
    assert {**configuration, "profile": "official"} == official_parser.configuration()


def test_another_pipeline_without_lemmatizer_works(tmp_path: Path) -> None:
    nlp = spacy.load(BUNDLED_MODEL, exclude=["lemmatizer", "attribute_ruler"])
    nlp.to_disk(tmp_path / "mine")
    parser = load_parser(spacy_model=tmp_path / "mine")
    assert parser.phrases(CAPTIONS) == PARSER.phrases(CAPTIONS)
    assert parser.configuration()["spacy_model_version"] == nlp.meta["version"]


def test_a_pipeline_is_known_by_its_files(tmp_path: Path) -> None:
    """Name and version are what their author wrote; other weights under the same are another pipeline."""
    nlp = spacy.load(BUNDLED_MODEL)
    nlp.to_disk(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "same")
    for node in nlp.get_pipe("parser").model.walk():  # type: ignore[attr-defined]
        for name in node.param_names:
            if node.has_param(name):
                node.set_param(name, 0 * node.get_param(name))
    nlp.to_disk(tmp_path / "other")
    one, same, other = (load_parser(spacy_model=tmp_path / name) for name in ("one", "same", "other"))
    assert one.phrases(CAPTIONS) != other.phrases(CAPTIONS)
    assert one.configuration() != other.configuration()
    assert one.configuration() == same.configuration()


def save_pipeline(directory: Path, deps: list[str], tags: list[str]) -> Path:
    """An untrained pipeline with the given labels; no labels, no component."""
    nlp: Language = spacy.blank("en")
    for name, labels in (("tagger", tags), ("parser", deps)):
        if labels:
            pipe = nlp.add_pipe(name)
            for label in labels:
                pipe.add_label(label)  # type: ignore[attr-defined]
    nlp.initialize()
    nlp.to_disk(directory)
    return directory


PENN = ["NN", "NNS", "JJ", "VBG", "VBN"]
UNUSABLE = {
    "universal dependencies": (["nsubj", "obj", "obl", "case", "ROOT"], PENN, "ClearNLP dependency labels.*dobj"),
    "no parser": ([], PENN, "has no parser"),
    "no tagger": (["nsubj", "dobj", "pobj", "prep", "nsubjpass"], [], "has no tagger"),
    "universal tags": (["nsubj", "dobj", "pobj", "prep", "nsubjpass"], ["NOUN", "VERB"], "Penn Treebank tags.*NN"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_pipelines_that_lack_something_are_refused(tmp_path: Path, kind: str) -> None:
    deps, tags, message = UNUSABLE[kind]
    with pytest.raises(InputError, match=message):
        load_parser(spacy_model=save_pipeline(tmp_path / "pipeline", deps, tags))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1_000])


DAMAGED: dict[str, Callable[[Path], object]] = {
    "no meta.json": lambda folder: (folder / "meta.json").unlink(),
    "torn meta.json": lambda folder: (folder / "meta.json").write_text("{"),
    "torn config.cfg": lambda folder: (folder / "config.cfg").write_text("xx"),
    "torn weights": lambda folder: cut(folder / "parser" / "model"),
    "unknown component": lambda folder: (folder / "config.cfg").write_text(
        (folder / "config.cfg").read_text().replace('factory = "tagger"', 'factory = "nonesuch"')
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_pipeline_is_named_with_the_cause(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(BUNDLED_MODEL, folder)
    DAMAGED[kind](folder)
    with pytest.raises(InputError, match=rf"{folder}' cannot be loaded: \w+Error: \S"):
        load_parser(spacy_model=folder)


def test_a_package_that_is_no_pipeline_is_refused() -> None:
    with pytest.raises(InputError, match="'torch' cannot be loaded: TypeError"):
        load_parser(spacy_model="torch")


def test_a_pipeline_without_a_name_is_refused() -> None:
    with pytest.raises(InputError, match="has no name"):
        load_parser(spacy_model="")


def test_a_pipeline_that_is_not_installed_says_how_to_install_it() -> None:
    with pytest.raises(InputError, match="spacy download en_core_web_nonesuch"):
        load_parser(spacy_model="en_core_web_nonesuch")


@pytest.mark.parametrize("options", [{"backend": "spice"}, {"profile": "poster"}])
def test_unknown_choices_name_the_known_ones(options: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"Use one of: (rules|paper)"):
        load_parser(**options)  # type: ignore[arg-type]
