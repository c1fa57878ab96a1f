"""`mvptr-data status`."""

from __future__ import annotations

import json

import click


@click.command("status")
@click.argument("out")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status_command(out: str, as_json: bool) -> None:
    """How far the extraction of OUT is: done, running, failed, rate, time left.

    Reads files only, so it may be asked at any time and from any machine that sees OUT.

    \b
    Example:
      mvptr-data status coco
    """
    from pipelines.run_status import render_status, run_status

    status = run_status(out)
    click.echo(json.dumps(status.to_json(), indent=1) if as_json else render_status(status))
