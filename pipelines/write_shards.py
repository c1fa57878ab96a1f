"""Captions to the text field, then index and manifest: the data set becomes readable.

1. match    `match_captions`: captions find their image's place                   text/staging/
2. write    one task a shard: its captions with the phrases the vocabulary knows  text/*.tar, .parquet, .json
3. publish  index and manifest; from here on readers see the data set             index.parquet, manifest.json

No step holds more than a bucket or a shard.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CaptionStore
from mvptr_data.dataset.fields import REGIONS, TEXT, FieldState, claim_generation, load_state
from mvptr_data.dataset.locks import Held, hold_lock
from mvptr_data.dataset.manifest import publish, published_facts
from mvptr_data.dataset.plan import Plan, load_plan
from mvptr_data.dataset.plan import read_rows as read_plan_rows
from mvptr_data.dataset.receipts import Receipt, is_finished, read_receipt
from mvptr_data.dataset.records import Caption, TextPhrase, encode_text
from mvptr_data.dataset.samples import ShardSamples, shard_samples
from mvptr_data.dataset.shards import shard_writer
from mvptr_data.errors import IncompleteError, SampleFault
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store, check_shared
from pipelines.cluster import Cluster, ClusterOptions, once_per_process, open_cluster
from pipelines.console import Reporter, reporting
from pipelines.match_captions import KEYLESS, STAGING, match_captions, matched_rows, staging, unmatched_captions


@dataclass(frozen=True, slots=True, kw_only=True)
class WritingSummary:
    """The published data set. `samples` have regions and text; `unmatched` captions met no image."""

    manifest: Mapping[str, Any]
    samples: int
    captions: int
    phrases: int
    unmatched: int
    shards_written: int
    shards_kept: int
    seconds: float


def write_shards(
    out: str, *, vocab: str | None = None, cluster: ClusterOptions | None = None, quiet: bool = False
) -> WritingSummary:
    """Join the captions of `out` to its plan, write the text field, and publish index and manifest.

    `vocab`: a phrase vocabulary other than `out/phrase_vocab.parquet` (ours or the authors' id2phrase.json). Other captions
    or another vocabulary than last time give a new generation of the text field; the regions stay untouched.

    Raises `IncompleteError` where regions or captions are not finished, `InputError`, `DamagedFileError`, `BusyError`.
    """
    cluster = cluster or ClusterOptions()
    if cluster.cluster != "inline":
        check_shared(out, vocab)
    store = Store.at(out)
    with reporting(quiet=quiet) as reporter:
        started = time.monotonic()
        load_plan(store)  # where there is none, no lock makes the folder
        with hold_lock(store, TEXT.name) as held:  # before the receipts are read: gc removes nothing from here on
            plan = load_plan(store)
            regions = _finished_regions(store, plan)
            captions = CaptionStore.load(store)
            vocabulary = _own_vocabulary(store, captions) if vocab is None else PhraseVocabulary.load(vocab)
            # How it was counted too, for its file is published with the text and must not change under its name.
            configuration = {
                "plan": plan.digest,
                "captions": captions.digest,
                "vocabulary": vocabulary.digest,
                "counting": dict(vocabulary.configuration),
            }
            report = reporter.keep_log(store, "write-shards")
            state = claim_generation(store, TEXT.name, configuration)
            vocabulary.save(store, layout.published_vocabulary(state.generation))
            store.remove_temporaries(TEXT.name)
            missing = [shard for shard in range(plan.shards) if not is_finished(store, TEXT.name, shard, state.digest)]
            if kept := plan.shards - len(missing):
                reporter.say(f"{kept} of {plan.shards} text shards are finished and kept")
            unmatched = unmatched_captions(store, plan, captions)
            if missing or unmatched is None:
                with open_cluster(cluster, report=report) as running:
                    unmatched = match_captions(store, reporter, running, plan, captions)
                    _write(store, reporter, running, plan, captions, state, missing, held)
                store.remove_temporaries(TEXT.name)  # of workers that were killed on the way
            texts = [_receipt(store, state, TEXT.name, shard) for shard in range(plan.shards)]
            samples = _samples(store, reporter, regions, texts, held)
            manifest = _publish(store, plan, [*regions, *texts], state, samples, captions, vocabulary, unmatched)
            store.remove_folder(STAGING)
        totals = manifest["fields"][TEXT.name]["totals"]
        reporter.say(
            f"{manifest['samples']:,} samples in {plan.shards} shards, {totals['captions']:,} captions with "
            f"{totals['phrases']:,} known phrases; {unmatched:,} captions met no image"
        )
        if unmatched:
            reporter.say(f"the captions that met no image are in {store.path(layout.UNMATCHED)}")
    return WritingSummary(
        manifest=manifest,
        samples=manifest["samples"],
        captions=totals["captions"],
        phrases=totals["phrases"],
        unmatched=unmatched,
        shards_written=len(missing),
        shards_kept=plan.shards - len(missing),
        seconds=time.monotonic() - started,
    )


def _own_vocabulary(store: Store, captions: CaptionStore) -> PhraseVocabulary:
    """The data set's vocabulary. Raises `IncompleteError` for one counted from other captions, which it then outlived."""
    vocabulary = PhraseVocabulary.load(store.path(layout.PHRASE_VOCAB))
    if vocabulary.configuration.get("captions") != captions.digest:
        raise IncompleteError(
            f"{store.path(layout.PHRASE_VOCAB)} was not counted from the captions in {store.root}",
            "Run build-phrase-vocab again, or name this file with --vocab where it is meant.",
        )
    return vocabulary


def _finished_regions(store: Store, plan: Plan) -> list[Receipt]:
    """The receipts of every regions shard. Raises `IncompleteError` naming how many are missing."""
    images = plan.parts[0].source.get("images")
    remedy = f"Run `mvptr-data extract-regions {images} {store.root}` (or import-tsv) to its end first."
    state = load_state(store, REGIONS.name)
    if state is None:
        raise IncompleteError(f"{store.root} has no regions", remedy)
    missing = [shard for shard in range(plan.shards) if not is_finished(store, REGIONS.name, shard, state.digest)]
    if missing:
        raise IncompleteError(
            f"{len(missing)} of {plan.shards} regions shards of {store.root} are not finished", remedy
        )
    return [_receipt(store, state, REGIONS.name, shard) for shard in range(plan.shards)]


def _receipt(store: Store, state: FieldState, field: str, shard: int) -> Receipt:
    """A shard's receipt; it was there a moment ago. Only a task of an earlier run, still alive somewhere, can change it."""
    receipt = read_receipt(store, field, shard)
    if receipt is None or receipt.configuration_digest != state.digest:
        raise _changed(store, layout.receipt(field, shard))
    return receipt


def _samples(
    store: Store, reporter: Reporter, regions: Sequence[Receipt], texts: Sequence[Receipt], held: Held
) -> Iterator[ShardSamples]:
    """The samples of each shard, from its receipts. Raises `IncompleteError` where their rows have vanished."""
    with reporter.step("align", len(regions), "shards") as step:
        for ours, text in zip(regions, texts, strict=True):
            try:
                yield shard_samples(store, ours.rows.name, text.rows.name)
            except FileNotFoundError as error:
                gone = next((one.rows.name for one in (ours, text) if not store.exists(one.rows.name)), ours.rows.name)
                raise _changed(store, gone) from error
            step.advance()
    held.check()


def _changed(store: Store, name: str) -> IncompleteError:
    return IncompleteError(f"{store.path(name)} was changed by another run", "Run the same command again.")


def _write(
    store: Store,
    reporter: Reporter,
    cluster: Cluster,
    plan: Plan,
    captions: CaptionStore,
    state: FieldState,
    missing: list[int],
    held: Held,
) -> None:
    task = TextTask(
        root=store.root,
        staging=staging(plan, captions),
        buckets=captions.buckets,
        state_digest=state.digest,
        generation=state.generation,
    )
    with reporter.step("write", sum(plan.rows[shard] for shard in missing), "images") as step:
        for shard, _ in cluster.complete(functools.partial(write_text_shard, task), missing):
            held.check()
            step.advance(plan.rows[shard])


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTask:
    """All a worker needs to know to write text shards."""

    root: str
    staging: str
    buckets: int
    state_digest: str
    generation: int


def write_text_shard(task: TextTask, shard: int) -> Receipt:
    """Write one shard of the text field; a row for every planned input, a sample for each with a usable caption."""
    store = Store(task.root)
    vocabulary = once_per_process(_load_vocabulary, task)
    by_position = {
        position: list(rows)
        for position, rows in groupby(
            matched_rows(store, task.staging, task.buckets, shard), key=itemgetter("position")
        )
    }
    with shard_writer(store, TEXT, shard, configuration_digest=task.state_digest, generation=task.generation) as (
        writer,
        receipts,
    ):
        for planned in read_plan_rows(store, shard):
            key, rows = planned["key"], by_position.get(planned["position"])
            if planned["fault"] in KEYLESS:
                writer.add_fault(key, SampleFault(planned["fault"], planned["message"]))
            elif not rows:
                writer.add_fault(
                    key, SampleFault("no_captions", "no caption names this image"), {"split": planned["split"]}
                )
            else:
                captions = [_caption(row, vocabulary) for row in rows]
                split = next((row["split"] for row in rows if row["split"]), planned["split"])
                facts = {
                    "split": split,
                    "captions": len(captions),
                    "phrases": sum(len(caption.phrases) for caption in captions),
                }
                writer.add(key, encode_text(split, captions), facts)
    return receipts[0]


def _load_vocabulary(task: TextTask) -> PhraseVocabulary:
    """Once a process and task: long-lived workers never use the vocabulary of an earlier run."""
    return PhraseVocabulary.load(Store(task.root).path(layout.published_vocabulary(task.generation)))


def _caption(row: Mapping[str, Any], vocabulary: PhraseVocabulary) -> Caption:
    """A stored caption with the phrases that are concepts, by position in the text, then by rank (`reference/model.md` 1)."""
    known = [
        (
            phrase["spans"][0][0],
            rank,
            TextPhrase(phrase=words, spans=tuple((start, end) for start, end in phrase["spans"])),
        )
        for phrase in row["phrases"]
        if (rank := vocabulary.rank(words := tuple(phrase["words"]))) is not None
    ]
    return Caption(
        id=row["caption_id"],
        text=row["text"],
        phrases=tuple(phrase for _, _, phrase in sorted(known, key=itemgetter(0, 1))),
    )


def _publish(
    store: Store,
    plan: Plan,
    receipts: Sequence[Receipt],
    state: FieldState,
    samples: Iterable[ShardSamples],
    captions: CaptionStore,
    vocabulary: PhraseVocabulary,
    unmatched: int,
) -> dict[str, Any]:
    regions = load_state(store, REGIONS.name)
    assert regions is not None, "checked at the start"
    name = layout.published_vocabulary(state.generation)
    return publish(
        store,
        plan,
        receipts,
        configurations={REGIONS.name: regions.configuration, TEXT.name: state.configuration},
        samples=samples,
        facts=published_facts(store, captions, vocabulary, name, unmatched),
    )
