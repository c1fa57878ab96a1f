"""A caption on which the parser fails: recorded, without phrases, and no harm to the others."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mvptr_data.scene_graphs import backends
from mvptr_data.scene_graphs.facts import Findings, Profile
from mvptr_data.scene_graphs.lemmas import Lemmatizer
from mvptr_data.scene_graphs.tokens import ParsedCaption
from pipelines import parse_captions
from pipelines.cluster import ClusterOptions
from pipelines.parse_captions import ParserChoice
from pipelines.phrase_vocab import VocabularySummary, build_phrase_vocab

LINES = [
    {"image": "a.jpg", "captions": ["A red ball.", "A red unicorn on a table."]},
    {"image": "b.jpg", "captions": ["A red ball on a table.", " "]},
    {"image": "c.jpg", "captions": ["A red unicorn on a table."]},
]


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    file = tmp_path / "captions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return file


@pytest.fixture
def no_unicorns(monkeypatch: pytest.MonkeyPatch) -> ParserChoice:
    """A parser whose rules do not know what to do with a unicorn."""
    real = backends.find_facts

    def fail(caption: ParsedCaption, lemmas: Lemmatizer, profile: Profile) -> Findings:
        if "unicorn" in caption.words:
            raise IndexError("list index\nout of range")
        return real(caption, lemmas, profile)

    monkeypatch.setattr(backends, "find_facts", fail)
    return ParserChoice(options=(("backend", "rules"), ("profile", "paper")))


def build(captions: Path, out: Path, parser: ParserChoice) -> VocabularySummary:
    inline = ClusterOptions(cluster="inline")
    return build_phrase_vocab([str(captions)], str(out), min_sentences=1, parser=parser, cluster=inline, quiet=True)


def test_it_has_a_row_among_the_faults(captions: Path, tmp_path: Path, no_unicorns: ParserChoice) -> None:
    summary = build(captions, tmp_path / "out", no_unicorns)
    assert (summary.texts, summary.faults) == (4, {"empty_caption": 1, "parser_error": 2})
    assert set(summary.vocabulary.phrases) == {("ball", "red"), ("ball", "on", "table")}
    empty, *failed = pq.read_table(tmp_path / "out/captions/faults.parquet").to_pylist()
    assert empty["error_class"] == "empty_caption"
    reason = "the caption parser failed: IndexError: list index out of range"
    assert [(row["error_class"], row["key"], row["message"]) for row in failed] == [
        ("parser_error", "a", f"caption a#1: {reason}"),
        ("parser_error", "c", f"caption c#0: {reason}"),
    ]


def test_a_run_that_is_killed_records_it_once(
    captions: Path, tmp_path: Path, no_unicorns: ParserChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(captions, tmp_path / "undisturbed", no_unicorns)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(parse_captions.CaptionStore, "save", stop)  # the faults are written by then
        with pytest.raises(KeyboardInterrupt):
            build(captions, tmp_path / "out", no_unicorns)
    build(captions, tmp_path / "out", no_unicorns)
    for name in ("faults.parquet", "captions.json", "00000.parquet"):
        wanted = (tmp_path / "undisturbed/captions" / name).read_bytes()
        assert (tmp_path / "out/captions" / name).read_bytes() == wanted
