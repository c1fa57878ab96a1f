"""`mvptr-data extract-regions`."""

from __future__ import annotations

import re
from typing import Any

import click

from mvptr_data.errors import InputError
from pipelines.cli.extraction_options import extraction_arguments, extraction_options


@click.command("extract-regions")
@click.argument("images")
@click.argument("out")
@click.option("--samples-per-shard", type=click.IntRange(1), default=1000, show_default=True)
@click.option(
    "--retry-failed",
    is_flag=False,
    flag_value="",
    metavar="[CLASS,...]",
    help="Also try again what failed: every class that may pass, or these. Alone it comes last on the line.",
)
@click.option(
    "--array-task",
    metavar="I/N",
    help="Do every N-th shard from I on (I = 0 .. N-1): one task of a job array, without a scheduler.",
)
@extraction_options
def extract_regions_command(
    images: str, out: str, samples_per_shard: int, retry_failed: str | None, array_task: str | None, **given: Any
) -> None:
    """Detect regions in IMAGES and write them to the data set OUT.

    IMAGES is a folder, a file list (.txt), a tar, or a folder of tars (img2dataset), as a path or URL. Every input gets a row in
    OUT/regions/*.parquet; those that cannot be used are recorded there by class. Run again, it goes on where it stopped.

    \b
    Examples:
      mvptr-data extract-regions photos/ coco --detector vinvl --device cuda --precision fp16
      mvptr-data extract-regions photos/ coco --detector vinvl --retry-failed unreadable_file
      mvptr-data extract-regions photos/ coco --detector vinvl --cluster inline --array-task 3/16
    """
    from mvptr_data.dataset.lock_files import WHOLE
    from pipelines.extract_regions import extract_regions
    from pipelines.runs.run import RETRYABLE

    part = WHOLE if array_task is None else _slice(array_task)
    classes = None if retry_failed is None else [name for name in retry_failed.split(",") if name] or sorted(RETRYABLE)
    summary = extract_regions(
        images,
        out,
        samples_per_shard=samples_per_shard,
        retry_failed=classes,
        part=part,
        **extraction_arguments(given),
    )
    if not summary.counts.get("ok") and part == WHOLE:
        raise InputError(
            f"not one of the {summary.plan.images:,} inputs could be used", f"See `mvptr-data failures {out}`."
        )


def _slice(text: str) -> Any:
    from mvptr_data.dataset.lock_files import Slice

    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not of the form I/N, such as 3/16", param_hint="--array-task")
    return Slice(int(found[1]), int(found[2]))
