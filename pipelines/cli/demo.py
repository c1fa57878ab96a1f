"""`mvptr-data demo`."""

from __future__ import annotations

from typing import Any

import click

from pipelines.cli.options import cluster_options
from pipelines.cluster import ClusterOptions


@click.command("demo")
@click.argument("directory")
@click.option(
    "--pictures",
    type=click.IntRange(1),
    default=4000,
    show_default=True,
    help="How many pictures to draw and learn from.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@cluster_options
def demo_command(directory: str, pictures: int, seed: int, **cluster: Any) -> None:
    """Draw a world of abstract scenes and take it all the way: to verified shards, measured against the truth, then through
    both stages of pre-training, measured on another world's pictures. Stopped and given again, it goes on.

    \b
    Example:
      mvptr-data demo build/demo
    """
    from pipelines.demo import run_demo

    quiet = cluster.pop("quiet")
    run_demo(directory, pictures=pictures, seed=seed, cluster=ClusterOptions(**cluster), quiet=quiet)
