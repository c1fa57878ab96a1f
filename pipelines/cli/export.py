"""`mvptr-data export`."""

from __future__ import annotations

from typing import Any, Literal

import click

from pipelines.cli.options import cluster_options
from pipelines.cluster import ClusterOptions


@click.command("export")
@click.argument("out")
@click.argument("target")
@click.option(
    "--format",
    "form",
    type=click.Choice(["webdataset", "vinvl-tsv"]),
    required=True,
    help="One tar a shard with all fields, or VinVL's predictions.tsv.",
)
@click.option(
    "--features",
    type=click.Choice(["inline", "separate", "both"]),
    default="inline",
    show_default=True,
    help="VinVL TSV: features in predictions.tsv, in a features.tsv (2054 wide) with imageid2idx.json, or in both.",
)
@cluster_options
def export_command(
    out: str,
    target: str,
    form: Literal["webdataset", "vinvl-tsv"],
    features: Literal["inline", "separate", "both"],
    **cluster: Any,
) -> None:
    """Write the published data set OUT into the folder TARGET, for tools that want another form.

    webdataset: TARGET/00000.tar ..., boxes, features, regions and text of a sample side by side. vinvl-tsv: all images with
    regions as one predictions.tsv with its .lineidx. TARGET is new or empty; run again, it goes on where it stopped.

    \b
    Example:
      mvptr-data export coco coco-webdataset --format webdataset
      mvptr-data export coco coco-vinvl --format vinvl-tsv --features separate
    """
    from pipelines.export_shards import export_shards

    quiet = cluster.pop("quiet")
    export_shards(out, target, form=form, features=features, cluster=ClusterOptions(**cluster), quiet=quiet)
