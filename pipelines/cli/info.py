"""`mvptr-data info`."""

from __future__ import annotations

import json
import sys

import click
from rich.console import Console


@click.command("info")
@click.argument("out")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info_command(out: str, as_json: bool) -> None:
    """Tell what OUT holds: images, faults, regions, captions, phrases, configurations.

    \b
    Example:
      mvptr-data info coco
    """
    from pipelines.describe_shards import describe_data_set, render

    facts = describe_data_set(out)
    if as_json:
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        Console(soft_wrap=not sys.stdout.isatty(), markup=False, emoji=False).print(render(facts))
