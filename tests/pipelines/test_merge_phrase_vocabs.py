from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest

from mvptr_data.dataset import layout
from mvptr_data.errors import ConfigurationMismatchError, DamagedFileError, IncompleteError, InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store
from pipelines import phrase_counting
from pipelines.cluster import ClusterOptions
from pipelines.merge_phrase_vocabs import merge_phrase_vocabs
from pipelines.parse_captions import ParserChoice
from pipelines.phrase_vocab import build_phrase_vocab

PARTS = 3


def build(captions: Path, out: Path, **options: object) -> PhraseVocabulary:
    inline = ClusterOptions(cluster="inline")
    summary = build_phrase_vocab(
        [str(captions)], str(out), cluster=inline, quiet=True, **{"min_sentences": 3, **options}
    )  # type: ignore[arg-type]
    return summary.vocabulary


def merge(parts: list[Path], out: Path, **options: object) -> PhraseVocabulary:
    return merge_phrase_vocabs([str(part) for part in parts], str(out), quiet=True, **options)  # type: ignore[arg-type]


def files(out: Path) -> tuple[bytes, bytes]:
    return (out / layout.PHRASE_VOCAB).read_bytes(), (out / layout.PHRASE_COUNTS).read_bytes()


@pytest.fixture(scope="module")
def corpus(world, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    """The captions of the world, and a phrase that is rare in every part of them."""
    rare = [{"image": f"zebra{number}.jpg", "captions": ["A purple zebra."]} for number in range(PARTS)]
    file = tmp_path_factory.mktemp("corpus") / "captions.jsonl"
    file.write_text(world.captions.read_text() + "".join(json.dumps(record) + "\n" for record in rare))
    return file


@pytest.fixture(scope="module")
def parts(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The corpus dealt to `PARTS` files, line by line, and a vocabulary of each."""
    folder = tmp_path_factory.mktemp("parts")
    lines = corpus.read_text().splitlines(keepends=True)
    for number in range(PARTS):
        file = folder / f"{number}.jsonl"
        file.write_text("".join(lines[number::PARTS]))
        build(file, folder / f"{number}")
    return [folder / f"{number}" for number in range(PARTS)]


@pytest.fixture
def part(parts: list[Path], tmp_path: Path) -> Path:
    """A copy of the first part, to break."""
    return Path(shutil.copytree(parts[0], tmp_path / "part"))


def test_the_merged_vocabulary_is_that_of_the_whole(corpus: Path, parts: list[Path], tmp_path: Path) -> None:
    whole = build(corpus, tmp_path / "whole")
    merged = merge(parts, tmp_path / "merged")
    assert (merged.phrases, merged.sentences, merged.digest) == (whole.phrases, whole.sentences, whole.digest)
    zebra = ("zebra", "purple")
    assert merged.sentences[merged.rank(zebra)] == PARTS
    assert all(PhraseVocabulary.load(str(part / layout.PHRASE_VOCAB)).rank(zebra) is None for part in parts)
    for what in ("unique", "split", "parser", "min_sentences"):
        assert merged.configuration[what] == whole.configuration[what]
    for what in ("texts", "images", "mentions"):
        sums = [sum(corpus[what] for corpus in found.configuration["corpora"]) for found in (merged, whole)]
        assert sums[0] == sums[1]
    names = [corpus["inputs"][0]["name"] for corpus in merged.configuration["corpora"]]
    assert sorted(names) == [f"{number}.jsonl" for number in range(PARTS)]


def test_order_and_grouping_change_no_byte(parts: list[Path], tmp_path: Path) -> None:
    merge(parts, tmp_path / "at once")
    for number, (one, two, three) in enumerate(permutations(parts)):
        merge([one, two], tmp_path / f"{number} pair")
        merge([three, tmp_path / f"{number} pair"], tmp_path / f"{number}")
        assert files(tmp_path / f"{number}") == files(tmp_path / "at once")


def test_more_vocabularies_than_are_read_at_once(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge(parts, tmp_path / "at once")
    monkeypatch.setattr(phrase_counting, "FAN_IN", 2)
    merge(parts, tmp_path / "by twos")
    assert files(tmp_path / "by twos") == files(tmp_path / "at once")
    assert sorted(path.name for path in (tmp_path / "by twos").iterdir()) == [
        *("locks", "logs", "phrase_counts.parquet", "phrase_vocab.parquet")
    ]


def test_another_threshold_is_that_of_the_whole(corpus: Path, parts: list[Path], tmp_path: Path) -> None:
    assert (
        merge(parts, tmp_path / "merged", min_sentences=5).phrases
        == build(corpus, tmp_path / "whole", min_sentences=5).phrases
    )
    build(corpus, tmp_path / "other", min_sentences=4)
    with pytest.raises(InputError, match=r"at least 3, 4 texts.*--min-sentences"):
        merge([parts[0], tmp_path / "other"], tmp_path / "out")


def test_one_vocabulary_alone_gets_another_threshold(parts: list[Path], tmp_path: Path) -> None:
    assert (
        merge([parts[0]], tmp_path / "same").digest == PhraseVocabulary.load(f"{parts[0]}/phrase_vocab.parquet").digest
    )
    assert len(merge([parts[0]], tmp_path / "all", min_sentences=1)) > len(merge([parts[0]], tmp_path / "few"))


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"parser": ParserChoice(options=(("profile", "official"),))}, "parser.profile: 'paper' -> 'official'"),
        ({"split": "val"}, "split: None -> 'val'"),
    ],
    ids=str,
)
def test_what_was_counted_otherwise_is_refused(
    parts: list[Path], tmp_path: Path, options: dict[str, object], difference: str
) -> None:
    captions = parts[0].with_suffix(".jsonl")
    build(captions, tmp_path / "other", **options)
    with pytest.raises(ConfigurationMismatchError, match=difference):
        merge([parts[1], tmp_path / "other"], tmp_path / "out")


def test_the_same_captions_twice_are_refused_unless_told(parts: list[Path], tmp_path: Path) -> None:
    shutil.copy(parts[0].with_suffix(".jsonl"), tmp_path / "renamed.jsonl")
    build(tmp_path / "renamed.jsonl", tmp_path / "again")
    with pytest.raises(InputError, match=r"both counted captions of 0\.jsonl.*--allow-repeated"):
        merge([parts[0], tmp_path / "again"], tmp_path / "out")
    twice = merge([parts[0], tmp_path / "again"], tmp_path / "out", allow_repeated=True)
    once = PhraseVocabulary.load(str(parts[0] / layout.PHRASE_VOCAB))
    counts = dict(zip(twice.phrases, twice.sentences, strict=True))
    assert all(counts[words] == 2 * said for words, said in zip(once.phrases, once.sentences, strict=True) if said)
    with pytest.raises(
        InputError, match=r"both counted captions of (renamed|0)\.jsonl"
    ):  # a merged vocabulary remembers its parts
        merge([tmp_path / "out", parts[0]], tmp_path / "thrice")


def test_a_file_is_known_in_a_folder_too(parts: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in (0, 1):
        shutil.copy(parts[number].with_suffix(".jsonl"), folder)
        (folder / f"{number}.tsv").touch()  # an empty file says nothing, and is none of what is counted twice
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/0.tsv").touch()
    shutil.copy(parts[2].with_suffix(".jsonl"), tmp_path / "empty")
    build(folder, tmp_path / "of folder")
    build(tmp_path / "empty", tmp_path / "of empty")
    for pair in ([tmp_path / "of folder", parts[0]], [parts[1], tmp_path / "of folder"]):
        with pytest.raises(InputError, match=r"both counted captions of (folder|1\.jsonl)\."):
            merge(pair, tmp_path / "out")
    merged = merge([tmp_path / "of folder", tmp_path / "of empty"], tmp_path / "merged")
    assert merged.digest == merge(parts, tmp_path / "all").digest
    with pytest.raises(
        InputError, match="both counted"
    ):  # a merged vocabulary remembers the files of its parts' folders
        merge([tmp_path / "merged", parts[0]], tmp_path / "out")


def test_a_vocabulary_that_knows_its_folder_as_a_whole_is_merged(parts: list[Path], tmp_path: Path) -> None:
    folder = Path(
        shutil.copytree(parts[0].parent, tmp_path / "folder", ignore=lambda _, names: set(names) - {"0.jsonl"})
    )
    vocabulary = build(folder, tmp_path / "old")
    [corpus] = vocabulary.configuration["corpora"]
    del corpus["inputs"][0]["files"]  # as releases before this one wrote it
    vocabulary.save(Store.at(tmp_path / "old"), layout.PHRASE_VOCAB)
    assert merge([tmp_path / "old", *parts[1:]], tmp_path / "out").digest == merge(parts, tmp_path / "all").digest


def test_what_killed_merges_left_is_removed(parts: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in (layout.PHRASE_COUNTS, layout.PHRASE_VOCAB, "notes.txt"):
        (out / f".{name}.1-00000000.tmp").write_bytes(b"torn")
    merge(parts, out)
    assert [path.name for path in out.glob(".*")] == [".notes.txt.1-00000000.tmp"]


def test_a_data_set_keeps_its_own_vocabulary(parts: list[Path], part: Path, tmp_path: Path) -> None:
    before = files(part)
    with pytest.raises(InputError, match="of its own"):
        merge(parts[1:], part)
    merge(parts[1:], tmp_path / "merged")
    with pytest.raises(InputError, match="of its own"):
        merge([parts[0], tmp_path / "merged"], tmp_path / "merged")
    assert files(part) == before


Break = Callable[[Path], object]


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda out: (out / layout.PHRASE_COUNTS).unlink(), IncompleteError, "no phrase_counts.parquet beside"),
        (lambda out: (out / layout.PHRASE_COUNTS).write_bytes(b"x"), DamagedFileError, "is not what"),
        (lambda out: (out / layout.PHRASE_VOCAB).unlink(), InputError, "no phrase vocabulary"),
        (lambda out: (out / layout.PHRASE_VOCAB).write_bytes(b"x"), DamagedFileError, "not readable"),
    ],
    ids=["no counts", "other counts", "no vocabulary", "torn vocabulary"],
)
def test_what_cannot_be_merged_is_said(
    parts: list[Path], part: Path, tmp_path: Path, damage: Break, error: type[Exception], message: str
) -> None:
    damage(part)
    with pytest.raises(error, match=message):
        merge([parts[1], part], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_authors_vocabulary_has_no_counts(tmp_path: Path) -> None:
    (tmp_path / "id2phrase.json").write_text(json.dumps({"30522": ["wave", "big"]}))
    with pytest.raises(IncompleteError, match="no phrase_counts"):
        merge([tmp_path / "id2phrase.json"], tmp_path / "out")
