"""Checking what concerns a data set as a whole: plan, fields' states, captions, vocabularies, index, samples in brief.

What readers need must be there; what only further commands need (captions, the data set's own vocabulary) may be gone, but not
damaged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CaptionStore
from mvptr_data.dataset.fields import FIELDS, REGIONS, TEXT, load_state
from mvptr_data.dataset.index import IndexRow
from mvptr_data.dataset.plan import Plan, read_faults
from mvptr_data.dataset.samples import samples_problem, shard_samples
from mvptr_data.dataset.tables import check_table
from mvptr_data.dataset.verify import Finding, file_problem
from mvptr_data.errors import MvptrError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store


def verify_whole(store: Store, plan: Plan, manifest: dict[str, Any], index: Sequence[IndexRow]) -> list[Finding]:
    """Everything but the shards and the samples in brief."""
    findings = [
        *_check_plan(store, plan, manifest),
        *_check_states(store, manifest),
        *verify_index(manifest, index),
        *_check_captions(store, manifest),
        *_check_own_vocabulary(store, manifest),
    ]
    vocabulary = manifest["phrase_vocab"]
    if message := file_problem(store, vocabulary["name"], None, vocabulary["sha256"]):
        findings.append(Finding(kind="digest", file=vocabulary["name"], message=message))
    return findings


def _check_plan(store: Store, plan: Plan, manifest: dict[str, Any]) -> Iterator[Finding]:
    made_from = plan.until(manifest["shards"])  # images may have been added since, and not published yet
    if made_from is None or made_from.digest != manifest["plan"]:
        yield Finding(
            kind="plan", file=layout.PLAN, message="the stored plan is not the one the manifest was made from"
        )
    damaged = verify_plan_shards(store, plan)
    yield from damaged
    if not damaged and (faults := sum(read_faults(store, shard) for shard in range(plan.shards))) != plan.faults:
        yield Finding(
            kind="plan", file=layout.PLAN, message=f"it counts {plan.faults} faults, its shards have {faults}"
        )


def verify_plan_shards(store: Store, plan: Plan) -> list[Finding]:
    """What is wrong with the files that say which input is where."""
    problems = (
        (name := layout.plan_shard(shard), file_problem(store, name, None, sha256))
        for shard, sha256 in enumerate(plan.sha256)
    )
    return [Finding(kind="plan", file=name, message=message) for name, message in problems if message]


def _check_states(store: Store, manifest: dict[str, Any]) -> Iterator[Finding]:
    """What each field says that it was made with. Text may have been begun anew since it was published; regions never are."""
    published = layout.vocabulary_generation(manifest["phrase_vocab"]["name"])
    for field in FIELDS:
        name = layout.field_state(field)
        try:
            state = load_state(store, field)
        except MvptrError as error:
            yield Finding(kind="state", file=name, message=error.message)
            continue
        promised = manifest["fields"][field]["configuration_digest"]
        if state is None:
            yield Finding(kind="state", file=name, message="the file is missing")
        elif state.digest != promised and (field == REGIONS.name or state.generation == published):
            yield Finding(kind="state", file=name, message="it is not the configuration that was published")


def _check_captions(store: Store, manifest: dict[str, Any]) -> Iterator[Finding]:
    """The parsed captions, from which the text field is written again, and the tables beside them."""
    for name in (layout.CAPTION_FAULTS, layout.UNMATCHED):
        try:
            with contextlib.suppress(FileNotFoundError):
                check_table(store, name, "captions")
        except MvptrError as error:
            yield Finding(kind="captions", file=name, message=error.message)
    if not store.exists(layout.CAPTIONS):
        return
    try:
        captions = CaptionStore.load(store)
    except MvptrError as error:
        yield Finding(kind="captions", file=layout.CAPTIONS, message=error.message)
        return
    published = manifest["captions"]
    if captions.digest == published["digest"] and captions.counts != published["counts"]:
        yield Finding(kind="captions", file=layout.CAPTIONS, message="its counts are not those that were published")
    for bucket, sha256 in enumerate(captions.sha256):
        if message := file_problem(store, layout.caption_bucket(bucket), None, sha256):
            yield Finding(kind="captions", file=layout.caption_bucket(bucket), message=message)


def _check_own_vocabulary(store: Store, manifest: dict[str, Any]) -> Iterator[Finding]:
    """The data set's own vocabulary, which the next text is written with, and the counts that it was made from."""
    name = layout.PHRASE_VOCAB
    if not store.exists(name):
        return
    try:
        own = PhraseVocabulary.load(store.path(name))
    except MvptrError as error:
        yield Finding(kind="vocabulary", file=name, message=error.message)
        return
    with contextlib.suppress(MvptrError):  # a damaged one is a finding of its own
        published = PhraseVocabulary.load(store.path(manifest["phrase_vocab"]["name"]))
        if own.configuration == published.configuration and own != published:
            yield Finding(kind="vocabulary", file=name, message="it is not what was published with its configuration")
    promised, counts = own.configuration.get("counts"), layout.PHRASE_COUNTS
    if promised and store.exists(counts) and (message := file_problem(store, counts, None, promised)):
        yield Finding(kind="vocabulary", file=counts, message=message)


def verify_index(manifest: dict[str, Any], index: Sequence[IndexRow]) -> Iterator[Finding]:
    """Whether the index has each shard of each field once, and sums to what the manifest says."""

    def finding(message: str) -> Finding:
        return Finding(kind="index", file=layout.INDEX, message=message)

    for field, entry in manifest["fields"].items():
        rows = [row for row in index if row.field == field]
        if sorted(row.shard for row in rows) != list(range(manifest["shards"])):
            yield finding(f"the shards of {field} are not 0 to {manifest['shards'] - 1}, each once")
        for name, promised, found in (
            ("inputs", entry["counts"]["inputs"], sum(row.inputs for row in rows)),
            ("samples", entry["counts"]["ok"], sum(row.samples for row in rows)),
            ("bytes", entry["bytes"], sum(row.bytes for row in rows)),
            ("captions", entry["totals"].get("captions"), _total(row.captions for row in rows)),
        ):
            if promised != found:
                yield finding(f"{field} has {found} {name}, the manifest promises {promised}")


def _total(counts: Iterable[int | None]) -> int | None:
    """The sum of counts; None where a field does not count."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def verify_samples(store: Store, manifest: dict[str, Any], index: Sequence[IndexRow]) -> list[Finding]:
    """Whether the published brief of the samples is what the shards hold. Call it where every shard is sound."""
    files = {(row.field, row.shard): row.rows_file for row in index}
    shards = (
        shard_samples(store, files[REGIONS.name, shard], files[TEXT.name, shard]) for shard in range(manifest["shards"])
    )
    try:
        problem = samples_problem(store, manifest, shards)
    except MvptrError as error:
        problem = error.message
    return [] if problem is None else [Finding(kind="samples", file=layout.SAMPLES, message=problem)]
