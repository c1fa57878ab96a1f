from __future__ import annotations

import csv
import json
import shutil
import statistics
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from PIL import Image

from mvptr_data import phrase_counts
from mvptr_data.errors import MissingDependencyError
from mvptr_data.phrases import PhraseVocabulary, order_key
from mvptr_data.scene_graphs import load_parser
from pipelines import phrase_figure
from pipelines.cli import main
from pipelines.cluster import ClusterOptions
from pipelines.phrase_figure import draw_statistics
from pipelines.phrase_stats import ALL, Frequencies, phrase_statistics
from pipelines.phrase_vocab import build_phrase_vocab

PARK = [
    "A red ball on a table.",
    "Two dogs and a red ball.",
    "A red ball near two dogs.",
    "A man in a red shirt.",
    "Hello.",
]
BEACH = ["A red ball on a beach.", "Two men in red shirts.", "A man in a red shirt."]


def build(folder: Path, name: str, texts: list[str], min_sentences: int = 2, split: str | None = None) -> Path:
    """A vocabulary of texts, two an image."""
    file = folder / f"{name}.jsonl"
    records = [{"image": f"{number // 2}.jpg", "split": split, "captions": [text]} for number, text in enumerate(texts)]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    inline = ClusterOptions(cluster="inline")
    build_phrase_vocab([str(file)], str(folder / name), min_sentences=min_sentences, cluster=inline, quiet=True)
    return folder / name


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def said(texts: list[str]) -> Counter[tuple[str, ...]]:
    """The texts that contain each phrase."""
    return Counter(words for phrases in load_parser().phrases(texts) for words in set(phrases))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("corpora")
    return build(folder, "park", PARK), build(folder, "beach", BEACH)


@given(st.lists(st.integers(1, 9), max_size=30), st.integers(1, 9))
def test_mean_and_median_are_those_of_the_list(sentences: list[int], least: int) -> None:
    found, kept = Frequencies(Counter(sentences)), [count for count in sentences if count >= least]
    assert (found.unique(least), found.mentions(least)) == (len(kept), sum(kept))
    assert found.mean(least) == (pytest.approx(statistics.mean(kept)) if kept else None)
    assert found.median(least) == (statistics.median(kept) if kept else None)


def test_the_numbers_are_those_of_the_texts(corpora: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phrase_counts, "BLOCK_ROWS", 2)  # what is found must not depend on where blocks end
    wanted = [("ball", "red"), ("man", "in", "shirt"), ("cat", "green")]
    found = phrase_statistics([str(out) for out in corpora], lookup=wanted, top=3)
    for corpus, texts, images in zip(found, (PARK, BEACH), (3, 2), strict=True):
        counts = said(texts)
        assert (corpus.texts, corpus.images) == (len(texts), images)
        assert corpus.frequencies[ALL].phrases == Counter(counts.values())
        assert corpus.sentences == {words: counts[words] for words in wanted}
        for kind, length in (("attribute", 2), ("relation", 3)):
            of_kind = {words: count for words, count in counts.items() if len(words) == length}
            assert corpus.frequencies[kind].phrases == Counter(of_kind.values())
            best = sorted(of_kind.items(), key=lambda item: order_key(*item))
            assert list(corpus.frequent[kind]) == best[:3]


def test_coverage_is_what_the_other_vocabulary_knows(corpora: tuple[Path, Path], tmp_path: Path) -> None:
    official = tmp_path / "id2phrase.json"
    official.write_text(json.dumps({"30522": ["ball", "red"], "999": ["ball"], "30600": ["shirt", "red"]}))
    found = phrase_statistics([str(out) for out in corpora], against=[str(official)])
    known = {
        name: set(PhraseVocabulary.load(str(out / "phrase_vocab.parquet")).phrases)
        for name, out in zip(("park", "beach"), corpora, strict=True)
    }
    known["id2phrase.json"] = {("ball", "red"), ("shirt", "red")}
    for corpus, texts in zip(found, (PARK, BEACH), strict=True):
        assert set(corpus.coverage) == set(known)
        for name, phrases in known.items():
            inside = {words: count for words, count in said(texts).items() if words in phrases}
            covered = corpus.coverage[name][ALL]
            assert (covered.unique, covered.mentions) == (len(inside), sum(inside.values()))
            attributes = corpus.coverage[name]["attribute"]
            assert attributes.unique == sum(len(words) == 2 for words in inside)


def test_a_vocabulary_knows_of_its_own_corpus_what_it_kept(corpora: tuple[Path, Path]) -> None:
    [corpus] = phrase_statistics([str(corpora[0])])
    own = corpus.coverage["park"][ALL]
    kept = corpus.frequencies[ALL]
    assert (own.unique, own.mentions) == (kept.unique(2), kept.mentions(2)) and own.unique > 0


def rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def test_the_command_prints_writes_and_draws(corpora: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(
        "phrase-stats", *corpora, "--out", tmp_path / "stats", "--lookup", "ball, red", "--lookup", "man,In, shirt"
    )
    assert result.exit_code == 0
    for title in ("Statistics of phrases", "that a vocabulary knows", "Most frequent of park", "Texts that say"):
        assert title in result.stdout
    assert "park.jsonl (5 texts of 3 images); split: all but val and test" in result.stdout
    table = {row["kind"]: row for row in rows(tmp_path / "stats/statistics.csv") if row["corpus"] == "park"}
    counts = said(PARK)
    kept = [count for count in counts.values() if count >= 2]
    assert int(table["all"]["unique"]) == len(counts) and int(table["all"]["kept"]) == len(kept)
    assert float(table["all"]["per_text"]) == pytest.approx(sum(kept) / len(PARK), rel=1e-5)
    assert float(table["all"]["median_frequency"]) == statistics.median(kept)
    looked_up = {(row["corpus"], row["phrase"]): row for row in rows(tmp_path / "stats/lookup.csv")}
    assert looked_up["park", "ball | red"] == {
        "corpus": "park",
        "phrase": "ball | red",
        "sentences": "3",
        "kept": "yes",
    }
    histogram = [
        row for row in rows(tmp_path / "stats/frequencies.csv") if (row["corpus"], row["kind"]) == ("park", "all")
    ]
    assert {int(row["sentences"]): int(row["phrases"]) for row in histogram} == Counter(counts.values())
    with Image.open(tmp_path / "stats/phrases.png") as picture:
        assert (
            picture.format == "PNG"
            and picture.width == 1920
            and len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50
        )


def test_the_same_numbers_are_the_same_bytes(corpora: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert run("phrase-stats", *corpora, "--out", tmp_path / name).exit_code == 0
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["coverage.csv", "frequencies.csv", "frequent.csv", "lookup.csv", "phrases.png", "statistics.csv"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_corpus_without_a_phrase_has_statistics_too(tmp_path: Path) -> None:
    out = build(tmp_path, "silent", ["Hello.", "Well, well."])
    [corpus] = phrase_statistics([str(out)])
    assert corpus.kinds == (ALL,) and corpus.frequencies[ALL].mean() is None
    result = run("phrase-stats", out, "--out", tmp_path / "stats")
    assert result.exit_code == 0 and (tmp_path / "stats/phrases.png").stat().st_size > 10_000


def test_corpora_of_one_name_are_told_apart(tmp_path: Path) -> None:
    outs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        outs.append(str(build(tmp_path / name, "coco", PARK)))
    assert [corpus.name for corpus in phrase_statistics(outs)] == outs
    [corpus] = phrase_statistics(outs[:1], against=outs[1:])
    assert set(corpus.coverage) == set(outs)


@pytest.mark.parametrize(
    "again", [("{park}",), ("{park}/",), ("{park}/../park/phrase_vocab.parquet",), ("--against", "{park}")], ids=str
)
def test_a_vocabulary_given_twice_is_refused(
    corpora: tuple[Path, Path], tmp_path: Path, again: tuple[str, ...]
) -> None:
    filled = [argument.format(park=corpora[0]) for argument in again]
    result = run("phrase-stats", *corpora, *filled, "--out", tmp_path / "stats")
    assert result.exit_code != 0 and f"{corpora[0]}/phrase_vocab.parquet is given more than once" in result.stderr
    assert not (tmp_path / "stats").exists()


def test_names_and_phrases_are_drawn_as_they_are(
    corpora: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("_x", r"a$\frac$")
    copies = [shutil.copytree(out, tmp_path / name) for out, name in zip(corpora, names, strict=True)]
    found = phrase_statistics([str(out) for out in copies])
    strange = (("man", r"x$\frac$ing", "hat"), 3)
    found = [replace(corpus, frequent={**corpus.frequent, "relation": (strange,)}) for corpus in found]
    drawn: list[Figure] = []
    real = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *rest, **named: drawn.append(self) or real(self, *rest, **named)
    )
    assert draw_statistics(found).startswith(b"\x89PNG")
    [figure] = drawn
    texts = [text.get_text() for text in figure.findobj(Text)]
    legends = [text.get_text() for legend in figure.findobj(Legend) for text in legend.get_texts()]
    for name in names:
        assert sum(name in text for text in legends) == 3 and f"Most frequent attributes of {name}" in texts
        assert f"{name}\nby {name}" in texts
    assert r"man · x$\frac$ing · hat" in texts


def test_the_numbers_are_there_whatever_happens_to_the_picture(
    corpora: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> bytes:
        raise MissingDependencyError("the picture needs matplotlib, which is not installed", "pip install matplotlib")

    monkeypatch.setattr(phrase_figure, "draw_statistics", fail)
    result = run("phrase-stats", *corpora, "--out", tmp_path / "stats")
    assert result.exit_code == 1 and "needs matplotlib" in result.stderr and "Most frequent of park" in result.stdout
    names = sorted(path.name for path in (tmp_path / "stats").iterdir())
    assert names == ["coverage.csv", "frequencies.csv", "frequent.csv", "lookup.csv", "statistics.csv"]


def test_info_tells_what_was_counted(corpora: tuple[Path, Path]) -> None:
    shown = " ".join(run("info", corpora[0]).stdout.split())
    assert "in at least 2 texts" in shown and "counted on park.jsonl (5 texts of 3 images)" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{tmp}/none",), "no phrase vocabulary"),
        (("{park}", "--against", "{tmp}/none.json"), "no phrase vocabulary"),
        (("{park}", "--lookup", "a, b, c, d"), "one to three words"),
        (("{park}", "--lookup", "a,,b"), "one to three words"),
        (("{tmp}/id2phrase.json",), "phrase_counts.parquet beside"),
    ],
    ids=str,
)
def test_mistakes_are_one_clear_line(
    corpora: tuple[Path, Path], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "id2phrase.json").write_text('{"30522": ["wave", "big"]}')
    filled = [argument.format(tmp=tmp_path, park=corpora[0]) for argument in arguments]
    result = run("phrase-stats", *filled, "--out", tmp_path / "stats")
    assert result.exit_code != 0 and result.stdout == ""
    [line] = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert message in line and not (tmp_path / "stats").exists()


def test_merge_and_export_as_commands(corpora: tuple[Path, Path], tmp_path: Path) -> None:
    merged = run("merge-phrase-vocabs", *corpora, tmp_path / "merged", "--min-sentences", 3)
    both = said(PARK) + said(BEACH)
    kept = sum(count >= 3 for count in both.values())
    assert (merged.exit_code, merged.stdout) == (0, f"unique {len(both):,}  kept {kept:,}\n")
    exported = run("export-phrase-vocab", tmp_path / "merged", tmp_path / "id2phrase.json")
    assert exported.exit_code == 0 and exported.stdout.startswith(f"{kept} phrases")
    vocabulary = PhraseVocabulary.load(str(tmp_path / "merged/phrase_vocab.parquet"))
    assert json.loads((tmp_path / "id2phrase.json").read_text()) == {
        str(30522 + rank): list(words) for rank, words in enumerate(vocabulary.phrases)
    }
    assert run("export-phrase-vocab", tmp_path / "id2phrase.json", tmp_path / "v.parquet").exit_code == 0
    assert PhraseVocabulary.load(str(tmp_path / "v.parquet")).phrases == vocabulary.phrases
    refused = run("export-phrase-vocab", tmp_path / "merged", tmp_path / "vocab.txt")
    assert refused.exit_code == 1 and "neither .json nor .parquet" in refused.stderr
