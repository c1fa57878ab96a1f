"""`mvptr-data write-shards`."""

from __future__ import annotations

from typing import Any

import click

from pipelines.cli.options import cluster_options
from pipelines.cluster import ClusterOptions


@click.command("write-shards")
@click.argument("out")
@click.option(
    "--vocab",
    help="Another phrase vocabulary (.parquet, or the authors' id2phrase.json).  [default: OUT/phrase_vocab.parquet]",
)
@cluster_options
def write_shards_command(out: str, vocab: str | None, **cluster: Any) -> None:
    """Join captions and images of OUT, write its text field, and publish index and manifest.

    \b
    Example:
      mvptr-data write-shards coco
    """
    from pipelines.write_shards import write_shards

    quiet = cluster.pop("quiet")
    write_shards(out, vocab=vocab, cluster=ClusterOptions(**cluster), quiet=quiet)
