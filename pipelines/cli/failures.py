"""`mvptr-data failures`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import click

from mvptr_data.errors import FAULT_CLASSES


@click.command("failures")
@click.argument("out")
@click.option("--class", "classes", multiple=True, metavar="CLASS", help="Only this class; may be repeated.")
@click.option(
    "--field", type=click.Choice(["regions", "text"]), default="regions", show_default=True, help="Whose failures."
)
@click.option("--limit", type=click.IntRange(0), default=10, show_default=True, help="Keys shown of each class.")
@click.option("--json", "as_json", is_flag=True, help="Print every one, a JSON object a line.")
def failures_command(out: str, classes: tuple[str, ...], field: str, limit: int, as_json: bool) -> None:
    """List the inputs of OUT that failed, by class, with their keys and reasons.

    \b
    Examples:
      mvptr-data failures coco
      mvptr-data failures coco --class unreadable_file --json > failed.jsonl
    """
    from pipelines.list_failures import list_failures

    counts: Counter[str] = Counter()
    shown: dict[str, list[str]] = {}
    failures = list_failures(out, classes, field)
    for failure in failures:
        if as_json:  # escaped to ASCII, as keys are not trusted
            click.echo(json.dumps(asdict(failure)))
            continue
        counts[failure.error_class] += 1
        if counts[failure.error_class] <= limit:
            shown.setdefault(failure.error_class, []).append(
                f"  {_printable(failure.key)}: {_printable(failure.message)}"
            )
    if failures.unfinished:
        click.echo(
            f"{failures.unfinished} of {failures.shards} shards are not finished; their inputs are not counted",
            err=True,
        )
    if as_json:
        return
    for name, count in counts.most_common():
        click.echo(f"{name}: {count:,} ({FAULT_CLASSES[name]})")
        for line in shown.get(name, ()):
            click.echo(line)
        if count > limit:
            click.echo(f"  ... and {count - limit:,} more (--limit, --json)")
    if not counts:
        where = " in the finished shards" if failures.unfinished else ""
        click.echo(f"no input failed{' with that' if classes else ''}{where}")


def _printable(text: str) -> str:
    """Keys come from archives and file names: no control character of theirs reaches a terminal."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
