"""Repair a data set: make again what says what it is, from the shards that it has.

1. states    `field.json` of a field, from a sound manifest
2. receipts  missing or torn ones, from tar and parquet that agree byte for byte    one task a shard
3. publish   index, samples in brief and manifest, from receipts, plan and rows
4. verify    every byte; what is left has to be made again, and by which command

Nothing is removed, no tar and no parquet of a shard is written, and nothing of another release is written over.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CaptionStore
from mvptr_data.dataset.fields import FIELDS, REGIONS, TEXT, FieldState, load_state, store_state
from mvptr_data.dataset.index import IndexRow, index_row, load_index
from mvptr_data.dataset.locks import Held, hold_lock
from mvptr_data.dataset.manifest import load_manifest, publish, published_facts
from mvptr_data.dataset.plan import Plan, load_plan
from mvptr_data.dataset.receipts import Receipt, is_intact, read_receipt, write_receipt
from mvptr_data.dataset.repair import published_state, rebuilt_receipt
from mvptr_data.dataset.samples import ShardSamples, load_image_ids, load_samples, shard_samples
from mvptr_data.dataset.tables import table_sha256
from mvptr_data.dataset.verify import Finding
from mvptr_data.dataset.verify_whole import verify_index, verify_plan_shards
from mvptr_data.errors import DamagedFileError, IncompleteError, InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store, digest
from pipelines.cluster import ClusterOptions, open_cluster
from pipelines.console import Reporter, reporting
from pipelines.match_captions import unmatched_captions
from pipelines.remaking import Remaking, remakings
from pipelines.verify_shards import Verification, VocabularyFile, unplanned, verify_rows, verify_shards

_PUBLISHED = (layout.INDEX, *layout.SAMPLE_FILES, layout.MANIFEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """`rebuilt`: the files made again. `left`: what has to be made by other commands.

    `verification` is that of the repaired data set; None where it still has no sound manifest.
    """

    rebuilt: tuple[str, ...]
    left: tuple[Remaking, ...]
    verification: Verification | None


def repair_shards(out: str, *, cluster: ClusterOptions | None = None, quiet: bool = False) -> Repair:
    """Rebuild what can be rebuilt of the data set `out`, then verify it. A sound data set is left as it is.

    Raises `BusyError` while a run writes there, `IncompleteError` and `DamagedFileError` where it has no sound plan,
    `FormatVersionError` where a file is of another release, `OutputError`.
    """
    cluster = cluster or ClusterOptions(cluster="inline")
    store = Store.at(out)
    load_plan(store)  # where there is none, no lock makes the folder
    with reporting(quiet=quiet) as reporter, ExitStack() as stack:
        held = [stack.enter_context(hold_lock(store, field)) for field in FIELDS]
        work = _Repair(store, reporter, cluster, held)
        work.states()
        work.vocabulary()
        work.receipts()
        work.publish()
        published = work.published()
        findings = work.findings if published else work.verify()
    verification = verify_shards(out, cluster=cluster, quiet=quiet) if published else None
    left = remakings(store, work.plan, [*findings, *(verification.findings if verification else ())])
    return Repair(rebuilt=tuple(work.rebuilt), left=tuple(left), verification=verification)


class _Repair:
    """The work on one data set, under its locks. `findings`: what could not be made again."""

    def __init__(self, store: Store, reporter: Reporter, cluster: ClusterOptions, held: Sequence[Held]) -> None:
        self._store, self._reporter, self._cluster, self._held = store, reporter, cluster, held
        self._report = reporter.keep_log(store, "repair")
        self.plan = load_plan(store)
        self._manifest, self._index = _trusted(store)
        self._states: dict[str, FieldState] = {}
        self._vocabulary: PhraseVocabulary | None = None
        self._receipts: dict[tuple[str, int], Receipt] = {}
        self.rebuilt: list[str] = []
        self.findings: list[Finding] = []

    def states(self) -> None:
        """What each field was made with; a lost or torn `field.json` is written again from the manifest."""
        for field in FIELDS:
            name = layout.field_state(field)
            try:
                state, why = load_state(self._store, field), "it is missing"
            except DamagedFileError as error:
                state, why = None, error.message
            if state is None and self._manifest is not None:
                state = published_state(self._manifest, field)
                self._write(name, functools.partial(store_state, self._store, field, state))
            if state is None:
                self._cannot("state", name, why)
            else:
                self._states[field] = state

    def vocabulary(self) -> None:
        """What the text was written with; its copy in `text/` is written again from the data set's own, if that is the same."""
        state = self._states.get(TEXT.name)
        if state is None:
            return
        name = layout.published_vocabulary(state.generation)
        for source in (name, layout.PHRASE_VOCAB):
            found = _load_vocabulary(self._store, source)
            wanted = state.configuration.get("vocabulary"), state.configuration.get("counting")
            if found is not None and (found.digest, found.configuration) == wanted:
                self._vocabulary = found
                if source != name:
                    self._write(name, functools.partial(found.save, self._store, name))
                return
        self._cannot("digest", name, "the vocabulary that the text was written with is missing or torn")

    def receipts(self) -> None:
        """Every shard's receipt; what is missing or torn is made again where its files agree."""
        unsound = []
        for field, state in self._states.items():
            for shard in range(self.plan.shards):
                receipt = self._sound_receipt(field, shard)
                if receipt is None:
                    unsound.append((field, shard))
                elif receipt.configuration_digest == state.digest:
                    self._receipts[field, shard] = receipt
        index = {(row.field, row.shard): row for row in self._index}
        tasks = [
            ReceiptTask(
                self._store.root, field, shard, self._states[field], self._vocabulary_file(), index.get((field, shard))
            )
            for field, shard in unsound
            if field != TEXT.name or self._vocabulary is not None
        ]
        with (
            open_cluster(self._cluster, report=self._report) as running,
            self._reporter.step("receipts", len(tasks), "shards") as step,
        ):
            for task, made in running.complete(rebuild_receipt, tasks):
                if isinstance(made, Receipt):
                    self._write(
                        layout.receipt(task.field, task.shard), functools.partial(write_receipt, self._store, made)
                    )
                    self._receipts[task.field, task.shard] = made
                elif task.published is not None or made.kind != "receipt":  # else nobody has made the shard yet
                    self.findings.append(made)
                step.advance()

    def publish(self) -> None:
        """Index, samples and manifest, where they are not sound and every shard has its receipt."""
        if self.published():
            return
        regions, text = (self._states.get(field) for field in (REGIONS.name, TEXT.name))
        if regions is None or text is None:
            return
        plan = _plan_of_text(self.plan, text)
        if plan is None:
            self._cannot("manifest", layout.MANIFEST, "the text was written for another plan")
            return
        places = [(field, shard) for field in FIELDS for shard in range(plan.shards)]
        if lacking := [place for place in places if not self._is_intact(*place)]:
            for field, shard in lacking:
                self._cannot(
                    "receipt", layout.receipt(field, shard), "the shard is not finished, or its files are gone or short"
                )
            return
        facts = self._facts(plan, text)
        if facts is None:
            return
        before = {name: _contents(self._store, name) for name in _PUBLISHED}
        self._check()
        try:
            publish(
                self._store,
                plan,
                [self._receipts[place] for place in places],
                configurations={REGIONS.name: regions.configuration, TEXT.name: text.configuration},
                samples=self._samples(plan),
                facts=facts,
            )
        except DamagedFileError as error:  # torn rows; nothing was published
            self._cannot("damaged", layout.MANIFEST, error.message)
            return
        for name in _PUBLISHED:
            if _contents(self._store, name) != before[name]:
                self._made(name)

    def published(self) -> bool:
        """Whether manifest, index and samples are sound, so that a reader can open them."""
        manifest, index = _trusted(self._store)
        if manifest is None or not index or any(verify_index(manifest, index)):
            return False
        try:
            load_samples(self._store, manifest)
            load_image_ids(self._store, manifest)
        except DamagedFileError:
            return False
        return True

    def verify(self) -> list[Finding]:
        """All findings, where there is no manifest to verify by: the receipts say what the shards should be."""
        known = {finding.file for finding in self.findings}
        rows = [
            index_row(receipt)
            for (field, shard), receipt in self._receipts.items()
            if layout.receipt(field, shard) not in known and (field != TEXT.name or self._vocabulary is not None)
        ]
        damaged = verify_plan_shards(self._store, self.plan)
        return [
            *damaged,
            *self.findings,
            *verify_rows(
                self._vocabulary_file(),
                rows,
                self._cluster,
                self._reporter,
                self._report,
                unplanned(self.plan, damaged),
            ),
        ]

    def _facts(self, plan: Plan, text: FieldState) -> dict[str, Any] | None:
        """What the manifest says of captions and vocabulary, from a sound one or from what there is; None where neither tells."""
        if self._manifest is not None and self._manifest["fields"][TEXT.name]["configuration"] == text.configuration:
            return {name: self._manifest[name] for name in ("captions", "phrase_vocab")}
        try:
            captions = CaptionStore.load(self._store)
        except (DamagedFileError, IncompleteError) as error:
            self._cannot("captions", layout.CAPTIONS, f"the manifest tells of the captions, and {error.message}")
            return None
        unmatched = unmatched_captions(self._store, plan, captions)
        if captions.digest != text.configuration.get("captions"):
            self._cannot("manifest", layout.MANIFEST, "the captions were parsed anew since the text was written")
        elif unmatched is None:
            self._cannot("manifest", layout.MANIFEST, f"{layout.UNMATCHED}, whose rows it counts, is missing or torn")
        elif self._vocabulary is not None:
            name = layout.published_vocabulary(text.generation)
            return published_facts(self._store, captions, self._vocabulary, name, unmatched)
        return None

    def _samples(self, plan: Plan) -> Iterator[ShardSamples]:
        for shard in range(plan.shards):
            regions, text = (self._receipts[field, shard].rows.name for field in (REGIONS.name, TEXT.name))
            yield shard_samples(self._store, regions, text)
        self._check()

    def _sound_receipt(self, field: str, shard: int) -> Receipt | None:
        try:
            return read_receipt(self._store, field, shard)
        except DamagedFileError:
            return None

    def _is_intact(self, field: str, shard: int) -> bool:
        receipt = self._receipts.get((field, shard))
        return receipt is not None and is_intact(self._store, receipt, self._states[field].digest)

    def _vocabulary_file(self) -> VocabularyFile:
        text = self._states.get(TEXT.name)
        name = layout.published_vocabulary(text.generation if text else 0)
        return VocabularyFile(self._store.root, name, self._vocabulary.digest if self._vocabulary else "")

    def _cannot(self, kind: str, file: str, why: str) -> None:
        if file not in {finding.file for finding in self.findings}:
            self.findings.append(Finding(kind=kind, file=file, message=why))

    def _write(self, name: str, write: functools.partial[None]) -> None:
        self._check()
        write()
        self._made(name)

    def _made(self, name: str) -> None:
        self.rebuilt.append(name)
        self._reporter.say(f"rebuilt: {name}")

    def _check(self) -> None:
        for lock in self._held:
            lock.check()


@dataclass(frozen=True, slots=True)
class ReceiptTask:
    """A shard whose receipt is missing or torn."""

    root: str
    field: str
    shard: int
    state: FieldState
    vocabulary: VocabularyFile
    published: IndexRow | None


def rebuild_receipt(task: ReceiptTask) -> Receipt | Finding:
    """The receipt that the shard's files stand for, or what is wrong with them. Writes nothing."""
    known = task.vocabulary.known() if task.field == TEXT.name else lambda words: False
    return rebuilt_receipt(Store(task.root), task.field, task.shard, task.state, known, task.published)


def _trusted(store: Store) -> tuple[dict[str, Any] | None, Sequence[IndexRow]]:
    """The manifest and the index as far as they are sound."""
    try:
        manifest = load_manifest(store)
    except (DamagedFileError, IncompleteError):
        return None, []
    try:
        return manifest, load_index(store, manifest)
    except DamagedFileError:
        return manifest, []


def _plan_of_text(plan: Plan, text: FieldState) -> Plan | None:
    """The plan as it was when the text was written: images may have been added since."""
    ends = (sum(part.shards for part in plan.parts[: number + 1]) for number in range(len(plan.parts)))
    plans = (plan.until(end) for end in ends)
    return next((one for one in plans if one and one.digest == text.configuration.get("plan")), None)


def _load_vocabulary(store: Store, name: str) -> PhraseVocabulary | None:
    try:
        return PhraseVocabulary.load(store.path(name))
    except (DamagedFileError, InputError):
        return None


def _contents(store: Store, name: str) -> str | None:
    """What tells a published file from another; None where it is gone or torn."""
    try:
        return digest(store.read_json(name)) if name == layout.MANIFEST else table_sha256(store, name)
    except (FileNotFoundError, DamagedFileError):
        return None
