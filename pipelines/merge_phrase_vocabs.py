"""Vocabularies of parts of a corpus to that of the whole, exactly: the rare phrases of each are counted too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import configuration_differences
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.errors import ConfigurationMismatchError, InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store, canonical_json, digest
from pipelines.caption_inputs import files_of
from pipelines.cluster import ClusterOptions, open_cluster
from pipelines.console import reporting
from pipelines.counted_vocabulary import CountedVocabulary, load_counted
from pipelines.phrase_counting import merges_of, reduce_counts
from pipelines.phrase_vocab import check_threshold, keep_frequent, remove_torn_vocabularies

#: Where merges of more vocabularies than can be read at once keep their files.
STAGING = "merging"


def merge_phrase_vocabs(
    vocabularies: Sequence[str],
    out: str,
    *,
    min_sentences: int | None = None,
    allow_repeated: bool = False,
    quiet: bool = False,
) -> PhraseVocabulary:
    """Merge the vocabularies in folders (or at paths) into `out/phrase_vocab.parquet` and `out/phrase_counts.parquet`.

    The result depends on neither order nor grouping: parts may be merged all at once or step by step. `min_sentences`: the new
    threshold; None is the one that all have. `allow_repeated`: count a caption file twice that two of them have.

    Raises `InputError` (the same captions twice, thresholds that differ, an `out` that has its own), `ConfigurationMismatchError`
    (another parser, profile or split), and what `load_counted` does.
    """
    parts = [load_counted(path) for path in vocabularies]
    _check_alike(parts)
    if not allow_repeated:
        _check_distinct(parts)
    threshold = _threshold(parts, min_sentences)
    store = Store.at(out)
    _check_output(store, parts)
    corpora = [corpus for part in parts for corpus in part.facts["corpora"]]
    facts = {
        "parser": parts[0].facts["parser"],
        "split": parts[0].facts["split"],
        "corpora": sorted(corpora, key=canonical_json),
    }
    runs = [(part.store.root, layout.PHRASE_COUNTS) for part in parts]
    with reporting(quiet=quiet) as reporter, hold_lock(store, "captions"):
        reporter.keep_log(store, "merge-phrase-vocabs")
        folder = f"{STAGING}/{digest([runs, facts])[:16]}"
        with (
            open_cluster(ClusterOptions(cluster="inline")) as inline,
            reporter.step("merge", merges_of(len(runs)), "merges") as step,
        ):
            reduce_counts(inline, runs, store, folder, layout.PHRASE_COUNTS, facts, step)
        vocabulary = keep_frequent(store, threshold)
        store.remove_folder(STAGING)
        remove_torn_vocabularies(store)
        reporter.say(
            f"{vocabulary.configuration['unique']:,} unique phrases of {len(corpora)} corpora, {len(vocabulary):,} kept "
            f"(in at least {threshold} texts)"
        )
    return vocabulary


def _check_alike(parts: Sequence[CountedVocabulary]) -> None:
    """Raises `ConfigurationMismatchError` where counts mean different things."""
    if not parts:
        raise InputError("no phrase vocabulary is given", "Name at least one.")
    first, *others = ({name: part.facts[name] for name in ("parser", "split")} for part in parts)
    for part, other in zip(parts[1:], others, strict=True):
        if differences := configuration_differences(first, other):
            raise ConfigurationMismatchError(
                f"{parts[0].store.root} and {part.store.root} were not counted alike: {'; '.join(differences)}",
                "Build both with the same release, parser, profile and split.",
            )


def _check_distinct(parts: Sequence[CountedVocabulary]) -> None:
    """Raises `InputError` where two parts have counted one caption file, whatever its name, alone or in a folder."""
    inputs = [
        {
            sha256: found["name"]
            for corpus in part.facts["corpora"]
            for found in corpus["inputs"]
            for sha256 in files_of(found)
        }
        for part in parts
    ]
    for (one, of_one), (other, of_other) in combinations(zip(parts, inputs, strict=True), 2):
        if common := sorted({of_one[sha256] for sha256 in of_one.keys() & of_other.keys()}):
            raise InputError(
                f"{one.store.root} and {other.store.root} have both counted captions of {', '.join(common)}",
                "Leave one out, or give --allow-repeated to count those captions twice.",
            )


def _threshold(parts: Sequence[CountedVocabulary], asked: int | None) -> int:
    if asked is not None:
        check_threshold(asked)
        return asked
    thresholds = sorted({part.facts["min_sentences"] for part in parts})
    if len(thresholds) > 1:
        raise InputError(
            f"the vocabularies keep phrases of at least {', '.join(map(str, thresholds))} texts",
            "Give --min-sentences.",
        )
    return int(thresholds[0])


def _check_output(store: Store, parts: Sequence[CountedVocabulary]) -> None:
    """Raises `InputError` where the merged vocabulary would replace one of a data set or of the parts."""
    if store.exists(layout.CAPTIONS) or store.root in {part.store.root for part in parts}:
        raise InputError(
            f"{store.root} has a phrase vocabulary of its own",
            "Give a new folder, and name its phrase_vocab.parquet to write-shards with --vocab.",
        )
