"""`mvptr-data import-tsv`."""

from __future__ import annotations

from typing import Any

import click

from pipelines.cli.extraction_options import max_failures_option
from pipelines.cli.options import cluster_options
from pipelines.cluster import ClusterOptions


@click.command("import-tsv")
@click.argument("features")
@click.argument("out")
@click.option(
    "--predictions", help="TSV of objects (class, conf, rect) that belongs to FEATURES, joined by id in any order."
)
@click.option("--sizes", help='TSV of image sizes: an id and [{"height": H, "width": W}] or H W (hw.tsv).')
@click.option(
    "--format",
    "form",
    type=click.Choice(["features", "predictions", "mvptr"]),
    help="What FEATURES is.  [default: found out from its first lines]",
)
@click.option(
    "--default-tag", help="Tag of regions whose class no file tells, e.g. object; without it they are faults."
)
@click.option("--split", help="Split to note for every image (train, val, test).")
@click.option("--samples-per-shard", type=click.IntRange(1), default=1000, show_default=True)
@max_failures_option
@cluster_options
def import_tsv_command(
    features: str,
    out: str,
    predictions: str | None,
    sizes: str | None,
    form: str | None,
    default_tag: str | None,
    split: str | None,
    samples_per_shard: int,
    max_failures: str | None,
    **cluster: Any,
) -> None:
    """Write the ready-made region features of FEATURES into the data set OUT, in place of extract-regions.

    FEATURES is a VinVL or Oscar features.tsv (2048 or 2054 numbers a region), a predictions.tsv with features in it, or what
    MVPTR's own extractor wrote; a path or URL. Every line gets a row in OUT/regions/*.parquet; those that cannot be used are
    recorded there by class. Run again, it goes on where it stopped.

    \b
    Example:
      mvptr-data import-tsv features.tsv coco --predictions predictions.tsv
    """
    from pipelines.import_features import import_features
    from pipelines.runs.budget import parse_budget

    quiet = cluster.pop("quiet")
    import_features(
        features,
        out,
        predictions=predictions,
        sizes=sizes,
        form=form,
        default_tag=default_tag,
        split=split,
        samples_per_shard=samples_per_shard,
        max_failures=None if max_failures is None else parse_budget(max_failures),
        cluster=ClusterOptions(**cluster),
        quiet=quiet,
    )
