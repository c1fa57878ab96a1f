from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mvptr_data.dataset.captions import CaptionStore
from mvptr_data.errors import ConfigurationMismatchError, InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.scene_graphs import load_parser
from mvptr_data.storage import Store
from pipelines import parse_captions, phrase_counting
from pipelines.cluster import ClusterOptions
from pipelines.parse_captions import ParserChoice
from pipelines.phrase_vocab import VocabularySummary, build_phrase_vocab

TRAIN = ["A red ball on a table.", "Two dogs are sitting under a tree.", "A red ball next to a red ball.", "a red ball"]
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


def files(out: Path) -> tuple[bytes, bytes]:
    """The bytes of the vocabulary and of its counts."""
    return (out / "phrase_vocab.parquet").read_bytes(), (out / "phrase_counts.parquet").read_bytes()


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


def refuse(*_: object) -> None:
    raise AssertionError("this was done before")


def test_another_split_counts_again_without_parsing(
    captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(captions, tmp_path / "out")
    monkeypatch.setattr(parse_captions, "_parse_chunk", refuse)
    assert build(captions, tmp_path / "out", split="val").counted_texts == 1


def test_another_threshold_neither_parses_nor_counts(
    captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_kept = build(captions, tmp_path / "out")
    fresh = build(captions, tmp_path / "fresh", min_sentences=2)
    monkeypatch.setattr(parse_captions, "_parse_chunk", refuse)
    monkeypatch.setattr(phrase_counting, "_count_part", refuse)
    frequent = build(captions, tmp_path / "out", min_sentences=2)
    assert frequent.kept < all_kept.kept and frequent.unique == all_kept.unique
    assert files(tmp_path / "out") == files(tmp_path / "fresh") and frequent.vocabulary == fresh.vocabulary


def test_counts_that_are_not_those_of_the_vocabulary_are_made_again(captions: Path, tmp_path: Path) -> None:
    build(captions, tmp_path / "out")
    sound = files(tmp_path / "out")
    (tmp_path / "out/phrase_counts.parquet").write_bytes(b"torn")
    build(captions, tmp_path / "out")
    assert files(tmp_path / "out") == sound


@pytest.mark.parametrize("partitions", [2, 7, 64])
@pytest.mark.parametrize("fan_in", [2, 16])
def test_any_number_of_partitions_gives_the_same_bytes(
    world,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    partitions: int,
    fan_in: int,  # type: ignore[no-untyped-def]
) -> None:
    build(world.captions, tmp_path / "out", partitions=1)
    whole = files(tmp_path / "out")
    (tmp_path / "out/phrase_vocab.parquet").unlink()  # so that the parsed captions are counted again
    monkeypatch.setattr(phrase_counting, "FAN_IN", fan_in)  # 2: a tree of six levels
    build(world.captions, tmp_path / "out", partitions=partitions)
    assert files(tmp_path / "out") == whole


def test_there_are_no_more_partitions_than_texts(captions: Path, tmp_path: Path) -> None:
    build(captions, tmp_path / "one")
    parts = phrase_counting.cut_parts(CaptionStore.load(Store.at(tmp_path / "one")), 1_000)
    assert len(parts) == sum(len(record["captions"]) for record in RECORDS)
    build(captions, tmp_path / "many", partitions=1_000)
    assert files(tmp_path / "many") == files(tmp_path / "one")


def test_workers_and_their_number_change_no_byte(world, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    build(world.captions, tmp_path / "one", partitions=7)
    two = ClusterOptions(cluster="local", workers=2)
    build_phrase_vocab(
        [str(world.captions)], str(tmp_path / "two"), min_sentences=1, partitions=7, cluster=two, quiet=True
    )
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_parts_are_counted_once_when_counting_is_stopped(
    world,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    build(world.captions, tmp_path / "undisturbed", partitions=5)
    real, done = phrase_counting._count_part, []

    def count(*arguments: object) -> object:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(arguments[-1])
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(phrase_counting, "_count_part", count)
    with pytest.raises(KeyboardInterrupt):
        build(world.captions, tmp_path / "out", partitions=5)
    first, done[:] = list(done), []
    build(world.captions, tmp_path / "out", partitions=5)
    assert len(first) == 3 and len(done) == 2 and not set(first) & set(done)
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")


def test_an_image_is_counted_once_in_however_many_partitions(tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    texts = [f"A red ball and {number} dogs." for number in range(2, 9)]
    file.write_text("".join(json.dumps({"image": f"{key}.jpg", "captions": texts}) + "\n" for key in "abc"))
    for partitions in (1, 5, 40):
        out = tmp_path / f"{partitions}"
        [corpus] = build(file, out, partitions=partitions).vocabulary.configuration["corpora"]
        assert (corpus["texts"], corpus["images"]) == (21, 3)


def test_a_text_that_comes_again_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "captions.jsonl"
    records = [
        {"image": f"{number}.jpg", "captions": ["A red ball.", f"A dog near {number} trees."]} for number in range(2, 9)
    ]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    parser, given = load_parser(), []
    real = type(parser).phrases_or_faults
    monkeypatch.setattr(type(parser), "phrases_or_faults", lambda self, texts: given.extend(texts) or real(self, texts))
    summary = build(file, tmp_path / "out")
    texts = {text for record in records for text in record["captions"]}
    assert sorted(text for text in given if text in texts) == sorted(texts)  # a parser's trial is no caption
    assert dict(zip(summary.vocabulary.phrases, summary.vocabulary.sentences, strict=True))[("ball", "red")] == 7


def test_profile_official_counts_single_objects_too(tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    texts = ["A man near a dog and a man.", "A couple of dogs on the grass."]
    file.write_text(json.dumps({"image": "a.jpg", "captions": texts}) + "\n")
    official = ParserChoice(options=(("profile", "official"),))
    vocabulary = build(file, tmp_path / "out", parser=official).vocabulary
    counts = dict(zip(vocabulary.phrases, vocabulary.sentences, strict=True))
    assert {words: count for words, count in counts.items() if len(words) == 1} == {
        ("man",): 1,  # said twice in a text
        ("dog",): 2,
        ("grass",): 1,
    }
    assert counts.keys() == {phrase for phrases in load_parser(profile="official").phrases(texts) for phrase in phrases}
    assert pq.read_table(tmp_path / "out/phrase_vocab.parquet")["kind"].to_pylist()[0] == "object"
    rows = pq.read_table(tmp_path / "out/captions/00000.parquet").to_pylist()
    for row in rows:
        places = [(phrase["spans"][0][0], phrase["spans"][-1][0]) for phrase in row["phrases"]]
        assert places == sorted(places)
        for phrase in row["phrases"]:
            assert len(phrase["words"]) > 1 or row["text"][slice(*phrase["spans"][0])].startswith(phrase["words"][0])
    assert not any(len(words) == 1 for words in build(file, tmp_path / "paper").vocabulary.phrases)


def test_what_was_counted_is_told(captions: Path, tmp_path: Path) -> None:
    configuration = build(captions, tmp_path / "out", split="train").vocabulary.configuration
    [corpus] = configuration["corpora"]
    assert corpus["inputs"] == [{"name": "captions.jsonl", "sha256": hashlib.sha256(captions.read_bytes()).hexdigest()}]
    assert (corpus["texts"], corpus["images"], corpus["mentions"]) == (4, 2, sum(expected_counts(TRAIN).values()))
    assert (configuration["split"], configuration["parser"]) == ("train", load_parser().configuration())
    counts = (tmp_path / "out/phrase_counts.parquet").read_bytes()
    assert configuration["counts"] == hashlib.sha256(counts).hexdigest()


def test_what_killed_runs_left_is_removed(captions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "captions").mkdir(parents=True)
    for name in ("phrase_counts.parquet", "phrase_vocab.parquet", "captions/00000.parquet", "notes.txt"):
        file = out / name
        file.with_name(f".{file.name}.1-00000000.tmp").write_bytes(b"torn")
    build(captions, out)
    assert [path.name for path in out.rglob(".*.tmp")] == [".notes.txt.1-00000000.tmp"]


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


def test_a_text_that_is_not_read_to_its_end_is_used_and_recorded(tmp_path: Path) -> None:
    texts = ["A red ball. " + "word " * 5_000, "\x00 \x07", "A red ball."]
    file = tmp_path / "captions.jsonl"
    file.write_text(json.dumps({"image": "a.jpg", "captions": texts}) + "\n")
    summary = build(file, tmp_path / "out")
    assert (summary.texts, summary.faults) == (2, {"long_caption": 1, "empty_caption": 1})
    assert dict(zip(summary.vocabulary.phrases, summary.vocabulary.sentences, strict=True))[("ball", "red")] == 2
    long, empty = pq.read_table(tmp_path / "out/captions/faults.parquet").to_pylist()
    assert (long["error_class"], long["key"]) == ("long_caption", "a") and long["message"].startswith(
        "caption a#0: the text has"
    )
    assert (empty["error_class"], empty["message"]) == ("empty_caption", "caption a#1: the caption has no text")


def test_nothing_to_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        build(tmp_path / "nowhere.json", tmp_path / "out")
    (tmp_path / "none.jsonl").write_text('{"image": "1.jpg", "captions": [" "]}\n')
    with pytest.raises(InputError, match="none usable"):
        build(tmp_path / "none.jsonl", tmp_path / "out")
    (tmp_path / "bells.jsonl").write_text(json.dumps({"image": "1.jpg", "captions": ["\x07"]}))
    with pytest.raises(InputError, match="not one caption"):
        build(tmp_path / "bells.jsonl", tmp_path / "out")


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
