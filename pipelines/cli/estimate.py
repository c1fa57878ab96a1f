"""`mvptr-data estimate`."""

from __future__ import annotations

import json
from typing import Any

import click

from pipelines.cli.extraction_options import detector_and_decode, detector_options


@click.command("estimate")
@click.argument("images")
@click.option("--sample", type=click.IntRange(1), default=200, show_default=True, help="Inputs that are extracted.")
@click.option(
    "--count",
    type=click.IntRange(1),
    help="How many inputs there are: only the beginning is listed then, and the sample is of that.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides the sample.")
@click.option("--samples-per-shard", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--split", help="As for extract-regions.")
@click.option("--root", help="Folder that absolute paths of a file list are relative to.")
@detector_options
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Compute threads.")
@click.option("--decode-threads", type=click.IntRange(1), help="Threads that read and decode images.  [default: cores]")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def estimate_command(images: str, as_json: bool, **given: Any) -> None:
    """Tell what extracting IMAGES would take: hours for 1, 8 and 64 workers, storage, memory, faults, and what bounds it.

    A sample is drawn uniformly and really extracted, in a temporary folder, on the device that the detector uses. What was
    measured and what is scaled from it are told apart.

    \b
    Examples:
      mvptr-data estimate photos/ --detector vinvl --device cuda --precision fp16
      mvptr-data estimate s3://bucket/crawl --count 100000000 --sample 500
    """
    from pipelines.estimate import estimate_extraction
    from pipelines.estimate_report import render_estimate

    chosen: dict[str, Any] = detector_and_decode(given)
    found = estimate_extraction(images, **chosen, **given)
    click.echo(json.dumps(found.to_json(), indent=1) if as_json else render_estimate(found))
