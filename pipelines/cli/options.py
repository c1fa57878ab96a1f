"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_CLUSTER = (
    click.option("--quiet", is_flag=True, help="Say nothing; the log beside the output has it all."),
    click.option(
        "--threads", type=click.IntRange(1), default=1, show_default=True, help="Compute threads of a worker."
    ),
    click.option(
        "--workers",
        type=click.IntRange(1),
        help="Processes that work.  [default: one for each --threads cores; local-cuda: one a GPU; slurm: the recipe's]",
    ),
    click.option("--cluster-config", metavar="FILE", help="Recipe for --cluster slurm (YAML); see pipelines/recipes."),
    click.option(
        "--cluster",
        default="local",
        show_default=True,
        help="inline, local, local-cuda (one worker a GPU), slurm, or a Dask scheduler's tcp:// address.",
    ),
)


def cluster_options(command: Command) -> Command:
    """`--cluster`, `--cluster-config`, `--workers`, `--threads`, `--quiet`.

    The same everywhere. The command gets them as keywords.
    """
    for option in _CLUSTER:
        command = option(command)
    return command
