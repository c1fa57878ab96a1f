"""Ready-made features to regions: list the lines of a TSV, plan, and one task for each shard that reads its own lines.

Nothing but byte ranges passes through the client, so a file may have tens of GB. Started again, a run keeps its plan and skips
every shard that has a sound receipt, as `extract_regions` does; its output is the same field.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import REGIONS, claim, load_state
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.dataset.plan import Plan, check_same_plan, load_plan, read_rows, ref_of, write_plan
from mvptr_data.dataset.receipts import Receipt, is_finished, read_receipt
from mvptr_data.dataset.records import encode_regions
from mvptr_data.dataset.shards import shard_writer
from mvptr_data.errors import IncompleteError, InputError, SampleFault
from mvptr_data.sources.feature_lines import FORMS
from mvptr_data.sources.feature_refs import (
    PROBED_LINES,
    FeatureSource,
    LineTable,
    find_form,
    list_features,
    read_regions,
)
from mvptr_data.sources.files import absolute
from mvptr_data.sources.refs import ImageRef
from mvptr_data.sources.tsv_lines import check_tsv, list_lines, stored_offsets
from mvptr_data.storage import Store
from pipelines.cluster import Cluster, ClusterOptions, TaskFailure, open_cluster
from pipelines.console import Reporter, reporting

#: Changed when the same lines give other regions than before.
READER_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """What a data set's regions are after an import. `counts`: inputs, ok and each fault class."""

    plan: Plan
    form: str
    counts: Mapping[str, int]
    regions: int
    shards_written: int
    shards_kept: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportTask:
    """All a worker needs to know; a few hundred bytes."""

    root: str
    source: FeatureSource
    configuration_digest: str


def import_features(
    features: str,
    out: str,
    *,
    predictions: str | None = None,
    sizes: str | None = None,
    form: str | None = None,
    default_tag: str | None = None,
    split: str | None = None,
    samples_per_shard: int = 1000,
    cluster: ClusterOptions | None = None,
    quiet: bool = False,
) -> ImportSummary:
    """Write ready-made features into the regions of the data set `out`.

    `features` is a TSV of one of the forms in `mvptr_data.sources.feature_lines` (`form` names it; else it is found out);
    `predictions` one of objects, joined to it by id; `sizes` one of image sizes; `default_tag` is the tag of regions whose class
    no file tells. Every line gets a row in `regions/*.parquet`, the faulty ones with their class.

    Raises `InputError` (nothing that can be used), `ConfigurationMismatchError` (`out` holds other work), `BusyError`,
    `IncompleteError` (some shards could not be done; the others are).
    """
    cluster = cluster or ClusterOptions()
    store = Store.at(out)
    with reporting(quiet=quiet) as reporter:
        started = time.monotonic()
        source, origin = _source(features, predictions, sizes, form, default_tag, split)
        refs = None if store.exists(layout.PLAN) else _listed(store, reporter, source, split)
        configuration = {
            "import": {
                "reader": READER_VERSION,
                "format": source.form,
                "predictions": source.predictions is not None,
                "default_tag": default_tag,
            },
            "feature_dtype": "float16",
        }
        with hold_lock(store, REGIONS.name):
            report = reporter.keep_log(store, "import-tsv")
            plan = _planned(store, reporter, refs, origin, samples_per_shard)
            identity = claim(store, REGIONS.name, configuration).digest
            store.remove_temporaries(REGIONS.name)
            missing = [shard for shard in range(plan.shards) if not is_finished(store, REGIONS.name, shard, identity)]
            if kept := plan.shards - len(missing):
                reporter.say(f"{kept} of {plan.shards} shards are finished and kept")
            if missing:
                task = ImportTask(root=store.root, source=source, configuration_digest=identity)
                with open_cluster(cluster, report=report) as running:
                    _run(running, reporter, task, plan, missing)
                store.remove_temporaries(REGIONS.name)  # of workers that were killed on the way
            found = [read_receipt(store, REGIONS.name, shard) for shard in range(plan.shards)]
        receipts = [receipt for receipt in found if receipt is not None]
        summary = ImportSummary(
            plan=plan,
            form=source.form,
            counts=_summed(receipt.counts for receipt in receipts),
            regions=sum(receipt.totals["regions"] for receipt in receipts),
            shards_written=len(missing),
            shards_kept=plan.shards - len(missing),
            seconds=time.monotonic() - started,
        )
        _report(reporter, store, summary)
    return summary


def import_shard(task: ImportTask, shard: int) -> Receipt:
    """Read the lines of one shard and write it; returns its receipt. Idempotent: the same bytes whenever and wherever it runs."""
    store = Store(task.root)
    seconds: defaultdict[str, float] = defaultdict(float)
    with shard_writer(store, REGIONS, shard, configuration_digest=task.configuration_digest, seconds=seconds) as (
        writer,
        receipts,
    ):
        for row in read_rows(store, shard):
            key, start = row["key"], time.perf_counter()
            try:
                if row["fault"] is not None:
                    raise SampleFault(row["fault"], row["message"])
                members, facts = _members(task.source, ref_of(row))
            except SampleFault as fault:
                writer.add_fault(key, fault)
                continue
            read = time.perf_counter()
            writer.add(key, members, facts)
            seconds["read"] += read - start
            seconds["write"] += time.perf_counter() - read
    return receipts[0]


def _members(source: FeatureSource, ref: ImageRef) -> tuple[dict[str, bytes], dict[str, Any]]:
    """A sample's members and facts.

    Nobody has the image's bytes, so its `sha256` stays unknown, and `image_id` is 64 bits of the sha256 of its key: one image is
    one id, as far as the file has one line for it.
    """
    regions = read_regions(source, ref)
    try:
        members = encode_regions(regions, regions.width, regions.height, regions.gold_tags)
    except ValueError as error:  # beyond float16's range, or a text that is no Unicode
        raise SampleFault("broken_record", str(error)) from error
    return members, {
        "width": regions.width,
        "height": regions.height,
        "image_id": int.from_bytes(hashlib.sha256(ref.key.encode()).digest()[:8], "big"),
        "regions": len(regions.tags),
    }


def _source(
    features: str,
    predictions: str | None,
    sizes: str | None,
    form: str | None,
    default_tag: str | None,
    split: str | None,
) -> tuple[FeatureSource, dict[str, Any]]:
    """The source, and what the plan says of it: a file of another length is another file. Raises `InputError`."""
    if form is not None and form not in FORMS:
        raise InputError(f"there is no format {form!r}", f"Known are {', '.join(FORMS)}.")
    if default_tag is not None and not default_tag.strip():
        raise InputError("the default tag has no text", "Give a word, such as object.")
    for path in (features, predictions, sizes):
        try:
            (path or "").encode()
        except UnicodeEncodeError as error:
            raise InputError(f"the path {path!r} is not UTF-8", "Rename it, or give it through a link.") from error
    paths = [None if path is None else absolute(path) for path in (features, predictions, sizes)]
    lengths = [None if path is None else check_tsv(path) for path in paths]
    assert paths[0] is not None
    form = form or find_form(paths[0])
    if paths[1] is not None and form != "features":
        raise InputError(
            f"--predictions is given, but {features!r} has the format {form!r}, which has its own",
            "Leave --predictions out.",
        )
    if paths[1] is not None and (found := find_form(paths[1])) != "predictions":
        raise InputError(f"{predictions!r} has the format {found!r}, not predictions", "Check the path.")
    source = FeatureSource(features=paths[0], form=form, predictions=paths[1], sizes=paths[2], default_tag=default_tag)
    named = dict(zip(("images", "predictions", "sizes"), paths, strict=True))
    return source, {**named, "bytes": lengths, "format": form, "split": split}


def _listed(store: Store, reporter: Reporter, source: FeatureSource, split: str | None) -> Iterator[ImageRef]:
    """The lines to plan. What makes the whole input unusable ends here, before anything is written."""
    if load_state(store, REGIONS.name) is not None:
        raise IncompleteError(
            f"{store.root} has regions but no plan that says whose they are",
            "Restore plan/, or remove the whole folder.",
        )
    table = None
    if source.predictions is not None:
        offsets = _offsets(reporter, source.predictions)
        table = LineTable(list_lines(source.predictions, offsets))
        odd = f"; {table.repeated:,} more repeat an id and are not used" if table.repeated else ""
        odd += f"; {table.faulty:,} have no id" if table.faulty else ""
        reporter.say(f"predictions of {len(table):,} images{odd}")
    refs = list_features(source, table, _offsets(reporter, source.features), split=split)
    first = list(islice(refs, PROBED_LINES))
    problem = _common_problem(source, first)
    if problem is not None:
        raise InputError(
            f"not one of the first {len(first)} lines of {source.features!r} can be used: {problem}",
            "Classes, scores and boxes come from --predictions, image sizes from --sizes, a word for regions without a class "
            "from --default-tag.",
        )
    return chain(first, refs)


def _offsets(reporter: Reporter, uri: str) -> Any:
    offsets, problem = stored_offsets(uri)
    if problem:
        reporter.say(f"{problem}; reading the file through instead")
    return offsets


def _common_problem(source: FeatureSource, refs: list[ImageRef]) -> str | None:
    """What is wrong with the first of these lines, if something is with all of them."""
    problem = "it has no lines"
    for ref in reversed(refs):
        try:
            if ref.fault is not None:
                raise SampleFault(ref.fault, ref.message or "")
            _members(source, ref)
        except SampleFault as fault:
            problem = fault.message
        else:
            return None
    return problem


def _planned(
    store: Store,
    reporter: Reporter,
    refs: Iterator[ImageRef] | None,
    origin: dict[str, Any],
    samples_per_shard: int,
) -> Plan:
    # A plan may have been written by another run since `refs` were listed, just before this run took the lock.
    if refs is None or store.exists(layout.PLAN):
        plan = load_plan(store)
        check_same_plan(plan, store, origin, samples_per_shard)
        reporter.say(f"going on with the stored plan: {plan.images:,} images in {plan.shards} shards")
        return plan
    store.remove_temporaries("plan")
    with reporter.step("list", 0, "lines") as step:

        def counted() -> Iterator[ImageRef]:
            for ref in refs:
                step.advance()
                yield ref

        plan = write_plan(store, counted(), source=origin, samples_per_shard=samples_per_shard)
    faults = f", {plan.faults:,} of them faulty" if plan.faults else ""
    reporter.say(f"planned {plan.images:,} images in {plan.shards} shards{faults}")
    return plan


def _run(cluster: Cluster, reporter: Reporter, task: ImportTask, plan: Plan, missing: list[int]) -> None:
    failures: dict[int, str] = {}
    with reporter.step("import", sum(plan.rows[shard] for shard in missing), "images") as step:
        for shard, outcome in cluster.run_tasks(functools.partial(import_shard, task), missing):
            if isinstance(outcome, TaskFailure):
                failures[shard] = outcome.reason
                reporter.say(f"shard {shard} failed: {outcome.reason}")
                continue
            reporter.record(f"shard {shard}: {outcome.counts} {outcome.seconds}")
            step.advance(plan.rows[shard])
    if failures:
        raise IncompleteError(
            f"{len(failures)} of {plan.shards} shards could not be imported ({', '.join(map(str, sorted(failures)))}): "
            f"{next(iter(failures.values()))}",
            "The others are safe; run the same command again, with --cluster inline to see the first error whole.",
        )


def _summed(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


def _report(reporter: Reporter, store: Store, summary: ImportSummary) -> None:
    faults = {name: count for name, count in summary.counts.items() if name not in ("inputs", "ok")}
    listed = ", ".join(f"{name} {count:,}" for name, count in sorted(faults.items())) or "none"
    reporter.say(
        f"{summary.counts['ok']:,} of {summary.counts['inputs']:,} images have regions ({summary.regions:,}); faults: {listed}"
    )
    if faults:
        reporter.say(f"every fault has a row with its key and reason in {store.path(REGIONS.name)}/*.parquet")
