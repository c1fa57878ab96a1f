"""Verify a data set: every digest, count, array, box and span, one task a shard."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass

from mvptr_data.dataset.manifest import IndexRow, load_index, load_manifest
from mvptr_data.dataset.plan import load_plan
from mvptr_data.dataset.verify import Finding, verify_samples, verify_shard, verify_whole
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store
from pipelines.cluster import ClusterOptions, once_per_process, open_cluster
from pipelines.console import reporting


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was checked and what was found. An empty `findings` means that every promise holds."""

    files: int
    samples: int
    bytes: int
    findings: tuple[Finding, ...]


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
        with contextlib.suppress(OSError):  # what cannot be written to can still be verified
            report = reporter.keep_log(store, "verify")
        findings = verify_whole(store, plan, manifest, index)
        if not any(finding.kind in ("plan", "digest") for finding in findings):
            vocabulary = manifest["phrase_vocab"]
            check = functools.partial(_verify_one, store.root, vocabulary["name"], vocabulary["sha256"])
            with (
                open_cluster(cluster or ClusterOptions(cluster="inline"), report=report) as running,
                reporter.step("verify", len(index), "shards") as step,
            ):
                for _, found in running.complete(check, index):
                    findings += found
                    step.advance()
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


def describe(finding: Finding) -> str:
    """A finding as one line."""
    return f"{finding.kind}: {finding.file}{f' [{finding.key}]' if finding.key else ''}: {finding.message}"


def _verify_one(root: str, vocabulary: str, sha256: str, row: IndexRow) -> list[Finding]:
    known = once_per_process(_load_vocabulary, root, vocabulary, sha256)
    return verify_shard(Store(root), row, lambda words: known.rank(words) is not None)


def _load_vocabulary(root: str, name: str, sha256: str) -> PhraseVocabulary:
    """`sha256` was checked before; it is here so that a process that lives long never uses an earlier vocabulary."""
    del sha256
    return PhraseVocabulary.load(Store(root).path(name))
