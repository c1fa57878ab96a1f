"""`mvptr-data extract-regions`."""

from __future__ import annotations

import json
from typing import Any

import click

from mvptr_data.errors import InputError
from pipelines.cli.options import cluster_options
from pipelines.cluster import ClusterOptions


@click.command("extract-regions")
@click.argument("images")
@click.argument("out")
@click.option("--detector", default="compact", show_default=True, help="Name of the detector.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the detector, e.g. score_threshold=0.4; may be repeated.",
)
@click.option("--samples-per-shard", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--split", help="Split to note for every image (train, val, test).")
@click.option("--root", help="Folder that absolute paths of a file list are relative to.")
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=100_000_000,
    show_default=True,
    help="Images with more are recorded as too_large.",
)
@click.option(
    "--min-side",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Images with a shorter side below are recorded as too_small.",
)
@click.option("--exif/--no-exif", default=False, show_default=True, help="Turn images as their EXIF orientation says.")
@cluster_options
def extract_regions_command(
    images: str,
    out: str,
    detector: str,
    options: tuple[str, ...],
    samples_per_shard: int,
    split: str | None,
    root: str | None,
    max_pixels: int,
    min_side: int,
    exif: bool,
    **cluster: Any,
) -> None:
    """Detect regions in IMAGES and write them to the data set OUT.

    IMAGES is a folder, a file list (.txt), a tar, or a folder of tars (img2dataset), as a path or URL. Every input gets a row in
    OUT/regions/*.parquet; those that cannot be used are recorded there by class. Run again, it goes on where it stopped.

    \b
    Example:
      mvptr-data extract-regions photos/ coco --detector compact --workers 2
    """
    from mvptr_data.sources.decoding import DecodeOptions
    from pipelines.extract_regions import extract_regions
    from pipelines.extract_shard import DetectorChoice

    quiet = cluster.pop("quiet")
    given = [_parse_option(option) for option in options]
    if len(dict(given)) != len(given):
        raise click.BadParameter("an option is given twice", param_hint="--option")
    summary = extract_regions(
        images,
        out,
        detector=DetectorChoice(name=detector, options=tuple(sorted(given))),
        decode=DecodeOptions(max_pixels=max_pixels, min_side=min_side, exif=exif),
        split=split,
        root=root,
        samples_per_shard=samples_per_shard,
        cluster=ClusterOptions(**cluster),
        quiet=quiet,
    )
    if not summary.counts.get("ok"):
        raise InputError(
            f"not one of the {summary.plan.images:,} inputs could be used",
            f"See {out}/regions/*.parquet for the reasons.",
        )


def _parse_option(text: str) -> tuple[str, Any]:
    """`name=value`, the value read as JSON where it is a number, string, boolean or null, else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE", param_hint="--option")
    try:
        found = json.loads(value)
    except (json.JSONDecodeError, RecursionError):
        return name, value
    return name, value if isinstance(found, list | dict) or found != found else found
