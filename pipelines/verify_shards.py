"""Verify a data set: every digest, count, array, box and span, one task a shard."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import TEXT
from mvptr_data.dataset.index import IndexRow, load_index
from mvptr_data.dataset.manifest import load_manifest
from mvptr_data.dataset.plan import Plan, load_plan
from mvptr_data.dataset.verify import Finding, KnownPhrase, verify_shard
from mvptr_data.dataset.verify_whole import verify_samples, verify_whole
from mvptr_data.errors import OutputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store
from pipelines.cluster import ClusterOptions, once_per_process, open_cluster
from pipelines.console import Reporter, reporting


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was checked and what was found. An empty `findings` means that every promise holds."""

    files: int
    samples: int
    bytes: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class VocabularyFile:
    """The vocabulary that the text was written with; `sha256` so that a process that lives long never uses an earlier one."""

    root: str
    name: str
    sha256: str

    def known(self) -> KnownPhrase:
        """Tells whether it holds a phrase; read once a process. Raises `DamagedFileError`, `InputError`."""
        vocabulary = once_per_process(_load_vocabulary, self)
        return lambda words: vocabulary.rank(words) is not None


def verify_shards(out: str, *, cluster: ClusterOptions | None = None, quiet: bool = False) -> Verification:
    """Check the published data set `out` against its manifest.

    Raises `IncompleteError` where nothing was published, `DamagedFileError` where manifest, index or plan cannot be trusted at
    all; everything below that comes back as findings.
    """
    store = Store.at(out)
    with reporting(quiet=quiet) as reporter:
        manifest = load_manifest(store)
        index = load_index(store, manifest)
        plan = load_plan(store)
        report = None
        with contextlib.suppress(OSError, OutputError):  # what cannot be written to can still be verified
            report = reporter.keep_log(store, "verify")
        findings = verify_whole(store, plan, manifest, index)
        vocabulary = VocabularyFile(store.root, *(manifest["phrase_vocab"][name] for name in ("name", "sha256")))
        # Without its vocabulary, nobody can tell whether text is as it should be. A row that is there twice is looked at once.
        broken = {finding.file for finding in findings}
        rows = [row for row in dict.fromkeys(index) if row.field != TEXT.name or vocabulary.name not in broken]
        findings += verify_rows(vocabulary, rows, cluster, reporter, report, unplanned(plan, findings))
        if not findings:
            findings += verify_samples(store, manifest, index)
        for finding in findings:
            reporter.say(describe(finding))
    return Verification(
        files=2 * len(index),
        samples=manifest["samples"],
        bytes=sum(row.bytes + row.rows_bytes for row in index),
        findings=tuple(findings),
    )


def verify_rows(
    vocabulary: VocabularyFile,
    rows: Sequence[IndexRow],
    cluster: ClusterOptions | None,
    reporter: Reporter,
    report: str | None,
    unplanned: frozenset[int],
) -> list[Finding]:
    """What is wrong with the shards that `rows` stand for, one task a shard; in the order of `rows`.

    `unplanned`: see there.
    """
    findings: dict[IndexRow, list[Finding]] = {}
    with (
        open_cluster(cluster or ClusterOptions(cluster="inline"), report=report) as running,
        reporter.step("verify", len(rows), "shards") as step,
    ):
        for row, found in running.complete(functools.partial(_verify_one, vocabulary, unplanned), rows):
            findings[row] = found
            step.advance()
    return [finding for row in rows for finding in findings[row]]


def unplanned(plan: Plan, findings: Iterable[Finding]) -> frozenset[int]:
    """The shards whose keys cannot be held against the plan, since `findings` say that it is damaged there."""
    broken = {finding.file for finding in findings}
    return frozenset(shard for shard in range(plan.shards) if layout.plan_shard(shard) in broken)


def describe(finding: Finding) -> str:
    """A finding as one line."""
    return f"{finding.kind}: {finding.file}{f' [{finding.key}]' if finding.key else ''}: {finding.message}"


def _verify_one(vocabulary: VocabularyFile, unplanned: frozenset[int], row: IndexRow) -> list[Finding]:
    known_phrase = vocabulary.known() if row.field == TEXT.name else _no_phrase
    return verify_shard(Store(vocabulary.root), row, known_phrase, planned=row.shard not in unplanned)


def _no_phrase(_: tuple[str, ...]) -> bool:
    """Only text has phrases."""
    return False


def _load_vocabulary(file: VocabularyFile) -> PhraseVocabulary:
    return PhraseVocabulary.load(Store(file.root).path(file.name))
