from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mvptr_data.errors import ConfigurationMismatchError, InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.scene_graphs import load_parser
from pipelines import parse_captions
from pipelines.cluster import ClusterOptions
from pipelines.phrase_vocab import VocabularySummary, build_phrase_vocab

INLINE = ClusterOptions(cluster="inline")
RECORDS = [
    {"image": "a.jpg", "split": "train", "captions": ["A red ball on a table.", "Two dogs are sitting under a tree."]},
    {"image": "b.jpg", "split": "train", "captions": ["A red ball next to a red ball.", "a red ball"]},
    {"image": "c.jpg", "split": "val", "captions": ["A red ball on a table."]},
    {"image": "d.jpg", "captions": ["There is a red ball."]},
    {"image": "e.jpg", "split": "test", "captions": ["A blue kite."]},
]


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    file = tmp_path / "captions.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return file


def build(captions: Path, out: Path, **options: object) -> VocabularySummary:
    return build_phrase_vocab([str(captions)], str(out), cluster=INLINE, quiet=True, **{"min_sentences": 1, **options})  # type: ignore[arg-type]


def expected_counts(texts: list[str]) -> Counter[tuple[str, ...]]:
    """Texts that contain a phrase, each counted once."""
    return Counter(phrase for phrases in load_parser().phrases(texts) for phrase in set(phrases))


@pytest.mark.parametrize(("split", "splits"), [(None, ("train", None)), ("val", ("val",)), ("train", ("train",))])
def test_frequency_is_the_number_of_texts_of_the_split(
    captions: Path, tmp_path: Path, split: str | None, splits: tuple[object, ...]
) -> None:
    texts = [text for record in RECORDS if record.get("split") in splits for text in record["captions"]]
    summary = build(captions, tmp_path / "out", split=split)
    vocabulary = PhraseVocabulary.load(str(tmp_path / "out/phrase_vocab.parquet"))
    assert dict(zip(vocabulary.phrases, vocabulary.sentences, strict=True)) == expected_counts(texts)
    assert (summary.texts, summary.counted_texts, summary.kept) == (7, len(texts), len(vocabulary))
    assert summary.mentions == expected_counts(texts).total()


def test_a_phrase_twice_in_a_text_counts_once_and_the_threshold_is_inclusive(captions: Path, tmp_path: Path) -> None:
    summary = build(captions, tmp_path / "out", min_sentences=4)
    assert summary.vocabulary.phrases == (("ball", "red"),) and summary.vocabulary.sentences == (4,)
    assert build(captions, tmp_path / "out", min_sentences=5).kept == 0


def test_another_threshold_or_split_counts_again_without_parsing(
    captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(captions, tmp_path / "out")

    def refuse(*_: object) -> None:
        raise AssertionError("captions were parsed again")

    monkeypatch.setattr(parse_captions, "_parse_chunk", refuse)
    assert build(captions, tmp_path / "out", min_sentences=2).kept < build(captions, tmp_path / "out").kept


def test_other_captions_are_refused(captions: Path, tmp_path: Path) -> None:
    build(captions, tmp_path / "out")
    captions.write_text(captions.read_text() + json.dumps({"image": "f.jpg", "captions": ["A cat."]}) + "\n")
    with pytest.raises(ConfigurationMismatchError, match="input"):
        build(captions, tmp_path / "out")


def test_neither_order_nor_chunks_nor_buckets_change_the_vocabulary(
    captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = build(captions, tmp_path / "one").vocabulary
    captions.write_text("".join(reversed(captions.read_text().splitlines(keepends=True))))
    monkeypatch.setattr(parse_captions, "CHUNK_TEXTS", (2, 3))
    monkeypatch.setattr(parse_captions, "BUCKET_TEXTS", 1)
    other = build(captions, tmp_path / "other").vocabulary
    assert (one.phrases, one.sentences) == (other.phrases, other.sentences)
    buckets = sorted((tmp_path / "other/captions").glob("0*.parquet"))
    assert len(buckets) == 8
    stored = [row for file in buckets for row in pq.read_table(file).to_pylist()]
    assert Counter(row["text"] for row in stored) == Counter(text for record in RECORDS for text in record["captions"])
    for file in buckets:
        order = [(row["key"], row["number"]) for row in pq.read_table(file).to_pylist()]
        assert order == sorted(order)


def test_stopped_in_the_middle_it_goes_on(captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse_captions, "CHUNK_TEXTS", (2, 2))
    undisturbed = build(captions, tmp_path / "undisturbed")
    real, parsed = parse_captions._parse_chunk, []

    def parse(*arguments: object) -> int:
        if len(parsed) == 2:
            raise KeyboardInterrupt
        parsed.append(arguments[-1])
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(parse_captions, "_parse_chunk", parse)
    with pytest.raises(KeyboardInterrupt):
        build(captions, tmp_path / "out")
    parsed[:] = []
    monkeypatch.setattr(
        parse_captions, "_parse_chunk", lambda *arguments: parsed.append(arguments[-1]) or real(*arguments)
    )
    resumed = build(captions, tmp_path / "out")
    assert parsed == [2, 3]
    assert resumed.vocabulary == undisturbed.vocabulary
    for name in ("captions/00000.parquet", "phrase_vocab.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert not (tmp_path / "out/captions/staging").exists()


def test_broken_records_are_kept_with_their_line(tmp_path: Path) -> None:
    lines = [json.dumps({"image": f"{number}.jpg", "captions": ["A red ball."]}) for number in range(1, 11)]
    lines[6] = '{"image": "7.jpg", "captions": ["A red'
    lines[8] = json.dumps({"image": "9.jpg", "captions": ["  ", "A red ball."]})
    file = tmp_path / "captions.jsonl"
    file.write_text("\n".join(lines))
    summary = build(file, tmp_path / "out")
    assert summary.texts == 9 and summary.faults == {"broken_record": 1, "empty_caption": 1}
    faults = pq.read_table(tmp_path / "out/captions/faults.parquet").to_pylist()
    assert [(fault["line"], fault["error_class"]) for fault in faults] == [(7, "broken_record"), (9, "empty_caption")]


def test_nothing_to_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        build(tmp_path / "nowhere.json", tmp_path / "out")
    (tmp_path / "none.jsonl").write_text('{"image": "1.jpg", "captions": [" "]}\n')
    with pytest.raises(InputError, match="none usable"):
        build(tmp_path / "none.jsonl", tmp_path / "out")


def test_what_lies_beside_captions_in_a_folder_changes_nothing(captions: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    captions.rename(folder / captions.name)
    first = build(folder, tmp_path / "out")
    (folder / "00000.tar").write_bytes(b"images")
    (folder / ".DS_Store").write_bytes(b"x")
    assert build(folder, tmp_path / "out").vocabulary == first.vocabulary
    (folder / "more.jsonl").write_text('{"image": "z.jpg", "captions": ["A cat."]}\n')
    with pytest.raises(ConfigurationMismatchError, match="input"):
        build(folder, tmp_path / "out")


def test_a_worker_with_another_parser_is_refused(
    captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = load_parser()
    answers = iter([parser.configuration(), {**parser.configuration(), "digest": "of an older release"}])
    monkeypatch.setattr(type(parser), "configuration", lambda self: next(answers))
    with pytest.raises(ConfigurationMismatchError, match="worker's caption parser"):
        build(captions, tmp_path / "out")
