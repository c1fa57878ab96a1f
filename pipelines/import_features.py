"""Ready-made features to regions: list the lines of a TSV, plan, and one task for each shard that reads its own lines.

Nothing but byte ranges passes through the client, so a file may have tens of GB. Started again, a run keeps its plan and skips
every shard that has a sound receipt, as `extract_regions` does; its output is the same field.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import REGIONS
from mvptr_data.dataset.plan import read_rows, ref_of
from mvptr_data.dataset.receipts import Receipt
from mvptr_data.dataset.records import encode_regions
from mvptr_data.dataset.shards import shard_writer
from mvptr_data.errors import InputError, SampleFault
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
from mvptr_data.storage import Store, check_shared
from pipelines.console import Reporter, reporting
from pipelines.environment import environment
from pipelines.runs.run import (
    RegionsSummary,
    RunOptions,
    Workers,
    check_unplanned,
    regions_run,
    stored_or_new_plan,
)

#: Changed when the same lines give other regions than before.
READER_VERSION = 1


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
    **options: Any,
) -> RegionsSummary:
    """Write ready-made features into the regions of the data set `out`.

    `features` is a TSV of one of the forms in `mvptr_data.sources.feature_lines` (`form` names it; else it is found out);
    `predictions` one of objects, joined to it by id; `sizes` one of image sizes; `default_tag` is the tag of regions whose class
    no file tells. Every line gets a row in `regions/*.parquet`, the faulty ones with their class. `options` are those of
    `RunOptions`, by keyword.

    Raises `InputError` (nothing that can be used), `ConfigurationMismatchError` (`out` holds other work), `BusyError`,
    `FailureBudgetError`, `IncompleteError` (some shards could not be done; the others are).
    """
    how = RunOptions(**options)
    if how.cluster.cluster != "inline":
        check_shared(features, predictions, sizes, out)
    store = Store.at(out)
    with reporting(quiet=how.quiet) as reporter, ExitStack() as stack:
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

        plan = stored_or_new_plan(store, refs, "lines", source=origin, samples_per_shard=samples_per_shard)
        workers = Workers(stack, how.cluster, reporter.keep_log(store, "import-tsv"), reporter.say)
        with regions_run(store, reporter, workers, how, configuration, plan) as run:
            task = ImportTask(root=store.root, source=source, configuration_digest=run.identity)
            run.pending("import", partial(import_shard, task))
            return run.summary()


def import_shard(task: ImportTask, shard: int) -> Receipt:
    """Read the lines of one shard and write it; returns its receipt. Idempotent: the same bytes whenever and wherever it runs."""
    store = Store(task.root)
    seconds: defaultdict[str, float] = defaultdict(float)
    written_by: dict[str, str] = {}
    with shard_writer(
        store,
        REGIONS,
        shard,
        configuration_digest=task.configuration_digest,
        seconds=seconds,
        environment=written_by,
    ) as (writer, receipts):
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
        written_by |= environment()
    return receipts[0]


def _members(source: FeatureSource, ref: ImageRef) -> tuple[dict[str, bytes], dict[str, Any]]:
    """A sample's members and facts.

    Nobody has the image's bytes, so its `sha256` stays unknown, and `image_id` is 64 bits of the sha256 of its key: one image is
    one id, as far as the file has one line for it.
    """
    regions = read_regions(source, ref)
    try:
        members = encode_regions(regions, regions.width, regions.height, regions.gold_tags)
    except ValueError as error:  # beyond float16's range
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
    _check_word("default tag", default_tag)
    _check_word("split", split)
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


def _check_word(what: str, word: str | None) -> None:
    """The shell hands over bytes that are no UTF-8 as half surrogates, which no file can hold."""
    try:
        (word or "").encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the {what} {word!r} is not UTF-8", "Give a word, such as object or train.") from error


def _listed(store: Store, reporter: Reporter, source: FeatureSource, split: str | None) -> Iterator[ImageRef]:
    """The lines to plan. What makes the whole input unusable ends here, before anything is written."""
    check_unplanned(store)
    table = None
    if source.predictions is not None:
        offsets = _offsets(reporter, source.predictions)
        table = LineTable(list_lines(source.predictions, offsets))
        odd = f"; {table.repeated:,} more repeat an id and are not used" if table.repeated else ""
        odd += f"; {table.faulty:,} have no id" if table.faulty else ""
        reporter.say(f"predictions of {len(table):,} images{odd}")
    refs = list_features(source, table, _offsets(reporter, source.features), split=split)
    first = list(islice(refs, PROBED_LINES))
    if source.sizes and not any("size " in (ref.member or "") for ref in first):
        reporter.say(f"{source.sizes} has a size for none of the first {len(first)} lines")
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
