"""`mvptr-data verify`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvptr_data.storage import Store
from pipelines.cli.options import cluster_options
from pipelines.cluster import ClusterOptions

if TYPE_CHECKING:
    from pipelines.verify_shards import Verification


@click.command("verify")
@click.argument("out")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Also write what was found as JSON."
)
@click.option(
    "--repair",
    is_flag=True,
    help="First make again what can be: index, samples, manifest, receipts; then say what is left.",
)
@cluster_options
def verify_command(out: str, json_file: Path | None, repair: bool, **cluster: Any) -> None:
    """Check every digest, count, array, box, key and span of OUT. Ends with 1 where anything is not as promised.

    \b
    Examples:
      mvptr-data verify coco
      mvptr-data verify coco --repair
    """
    quiet, options = cluster.pop("quiet"), ClusterOptions(**cluster)
    if repair:
        _repair(out, json_file, options, quiet)
        return
    from pipelines.verify_shards import verify_shards

    result = verify_shards(out, cluster=options, quiet=quiet)
    _write(json_file, _as_json(result))
    if result.findings:
        kinds = sorted({finding.kind for finding in result.findings})
        raise click.ClickException(
            f"{len(result.findings)} findings ({', '.join(kinds)}). `mvptr-data verify {out} --repair` makes again what can be, "
            "and says by which commands the rest is."
        )
    click.echo(_sound(result))


def _repair(out: str, json_file: Path | None, options: ClusterOptions, quiet: bool) -> None:
    from pipelines.repair_shards import repair_shards

    result = repair_shards(out, cluster=options, quiet=quiet)
    checked = {} if result.verification is None else _as_json(result.verification)
    _write(json_file, checked | {"rebuilt": result.rebuilt, "left": [asdict(one) for one in result.left]})
    for one in result.left:
        click.echo(str(one))
    rebuilt = f"{len(result.rebuilt)} files rebuilt"
    if result.left or result.verification is None:
        raise click.ClickException(f"{rebuilt}, {len(result.left)} left: each has to be made again as said above.")
    click.echo(f"{rebuilt}; {_sound(result.verification)}")


def _sound(result: Verification) -> str:
    return f"sound: {result.samples:,} samples in {result.files} files, {result.bytes / 1e6:,.1f} MB"


def _as_json(result: Verification) -> dict[str, Any]:
    found = {"files": result.files, "samples": result.samples, "bytes": result.bytes}
    return found | {"findings": [asdict(finding) for finding in result.findings]}


def _write(json_file: Path | None, found: dict[str, Any]) -> None:
    if json_file is not None:
        Store.at(json_file.absolute().parent).write_json(json_file.name, found)
