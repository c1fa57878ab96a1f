"""Captions to a phrase vocabulary, in bounded memory.

1. parse   `parse_captions`: captions -> captions/*.parquet, once
2. count   `phrase_counting`: how many texts contain each phrase              phrase_counts.parquet
3. keep    the frequent ones, ranked                                          phrase_vocab.parquet

Another threshold reads the counts again, another split the parsed captions; neither parses.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CaptionStore
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.errors import DamagedFileError, FormatVersionError, InputError
from mvptr_data.phrase_counts import count_rows, frequent_phrases, read_facts
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store, check_shared, digest
from pipelines.caption_inputs import CaptionInput, identify_inputs
from pipelines.cluster import Cluster, ClusterOptions, open_cluster
from pipelines.console import Reporter, reporting
from pipelines.parse_captions import STAGING, ParserChoice, caption_configuration, parsed_captions
from pipelines.phrase_counting import count_parts, cut_parts, merges_of, reduce_counts


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularySummary:
    """What was read and counted. `mentions` counts each phrase once a text; `unique` is before the threshold, `kept` after."""

    texts: int
    counted_texts: int
    faults: Mapping[str, int]
    mentions: int
    unique: int
    kept: int
    seconds: float
    vocabulary: PhraseVocabulary


def build_phrase_vocab(
    captions: Sequence[str],
    out: str,
    *,
    min_sentences: int = 50,
    split: str | None = None,
    caption_key: str | None = None,
    parser: ParserChoice | None = None,
    partitions: int | None = None,
    cluster: ClusterOptions | None = None,
    quiet: bool = False,
) -> VocabularySummary:
    """Parse `captions` (paths or URLs) into `out/captions/` and count them into `out/phrase_vocab.parquet`.

    Needs no plan and no images. `out/phrase_counts.parquet` keeps the rare phrases too, for merging and for another threshold.

    `split` names the split whose texts are counted; None counts all that are not `val` or `test`. `caption_key` says where
    the image key of a record is (a field, or a template such as `{filepath}/{filename}`). `partitions`: count in at least
    so many tasks, of a text at least; None is one for each 200,000 captions, about. The result does not depend on it.

    Raises `InputError` (nothing to read, the same captions twice, or changed while they were read), `BusyError`,
    `ConfigurationMismatchError` (`out` holds other captions, or the same ones parsed otherwise), `IncompleteError` (some tasks
    failed; run again).
    """
    parser, cluster = parser or ParserChoice(), cluster or ClusterOptions()
    check_threshold(min_sentences)
    if partitions is not None and partitions < 1:
        raise InputError(f"partitions is {partitions}", "Give a number of at least 1.")
    if cluster.cluster != "inline":
        check_shared(out, *captions)
    store = Store.at(out)
    with reporting(quiet=quiet) as reporter:
        started = time.monotonic()
        inputs = identify_inputs(captions)
        configuration = caption_configuration(inputs, caption_key, parser)
        with hold_lock(store, "captions"):
            report = reporter.keep_log(store, "build-phrase-vocab")
            with open_cluster(cluster, report=report) as running:
                stored = parsed_captions(store, reporter, running, inputs, configuration, parser)
                if _is_counted(store, stored, split):
                    reporter.say("these captions are counted already: only the threshold is applied")
                else:
                    _count(store, reporter, running, inputs, stored, split, partitions)
            vocabulary = keep_frequent(store, min_sentences, captions=stored.digest)
            store.remove_folder(STAGING)
            store.remove_temporaries("captions")  # of workers that were killed, now or in an earlier run
            remove_torn_vocabularies(store)
        [counted] = vocabulary.configuration["corpora"]
        summary = VocabularySummary(
            texts=stored.counts["texts"],
            faults={name: count for name, count in stored.counts.items() if name != "texts"},
            counted_texts=counted["texts"],
            mentions=counted["mentions"],
            unique=vocabulary.configuration["unique"],
            kept=len(vocabulary),
            seconds=time.monotonic() - started,
            vocabulary=vocabulary,
        )
        reporter.say(
            f"{summary.texts:,} texts ({summary.counted_texts:,} counted): {summary.mentions:,} phrases, "
            f"{summary.unique:,} unique, {summary.kept:,} kept (in at least {min_sentences} texts)"
        )
        if summary.faults:
            listed = ", ".join(f"{name} {count:,}" for name, count in sorted(summary.faults.items()))
            reporter.say(f"faulty records: {listed}; each has a row in {store.path(layout.CAPTION_FAULTS)}")
    return summary


def check_threshold(min_sentences: int) -> None:
    """Raises `InputError` for a threshold that is none."""
    if min_sentences < 1:
        raise InputError(f"min_sentences is {min_sentences}", "Give a number of at least 1.")


def keep_frequent(store: Store, min_sentences: int, **facts: str) -> PhraseVocabulary:
    """Make `phrase_vocab.parquet` from the counts beside it; `facts` join those of the counts in its configuration.

    What is kept has to fit into memory: it is what a model has embeddings for.
    """
    name = layout.PHRASE_COUNTS
    configuration = {
        **read_facts(store, name),
        **facts,
        "min_sentences": min_sentences,
        "unique": count_rows(store, name),
        "counts": store.sha256(name),
    }
    vocabulary = PhraseVocabulary.from_counts(frequent_phrases(store, name, min_sentences), configuration)
    vocabulary.save(store, layout.PHRASE_VOCAB)
    return vocabulary


def remove_torn_vocabularies(store: Store) -> None:
    """Remove what killed runs left of a vocabulary and its counts; call only while holding their lock."""
    whole = tuple(f"{name}." for name in (layout.PHRASE_VOCAB, layout.PHRASE_COUNTS))
    store.remove_temporaries("", lambda base: base.startswith(whole))


def _is_counted(store: Store, captions: CaptionStore, split: str | None) -> bool:
    """Whether the counts that are there are those of `split` of these captions."""
    try:
        known = PhraseVocabulary.load(store.path(layout.PHRASE_VOCAB)).configuration
        return (known.get("captions"), known.get("split"), known.get("counts")) == (
            captions.digest,
            split,
            store.sha256(layout.PHRASE_COUNTS),
        )
    except (InputError, DamagedFileError, FormatVersionError, FileNotFoundError):
        return False


def _count(
    store: Store,
    reporter: Reporter,
    cluster: Cluster,
    inputs: Sequence[CaptionInput],
    captions: CaptionStore,
    split: str | None,
    partitions: int | None,
) -> None:
    """Frequencies over all captions of the split, into `phrase_counts.parquet`."""
    parts = cut_parts(captions, partitions)
    folder = f"{STAGING}/counts-{digest([captions.digest, split, len(parts)])[:16]}"
    with reporter.step("count", len(parts) + merges_of(len(parts)), "tasks") as step:
        runs, tally = count_parts(cluster, store, folder, parts, split, step)
        corpus = {"inputs": [found.counted for found in inputs], **tally._asdict()}
        facts = {"parser": captions.configuration["parser"], "split": split, "corpora": [corpus]}
        reduce_counts(cluster, runs, store, folder, layout.PHRASE_COUNTS, facts, step)
