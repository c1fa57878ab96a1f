"""`mvptr-data verify`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mvptr_data.storage import Store
from pipelines.cli.options import cluster_options
from pipelines.cluster import ClusterOptions


@click.command("verify")
@click.argument("out")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Also write what was found as JSON."
)
@cluster_options
def verify_command(out: str, json_file: Path | None, **cluster: Any) -> None:
    """Check every digest, count, array, box, key and span of OUT. Ends with 1 where anything is not as promised.

    \b
    Example:
      mvptr-data verify coco
    """
    from pipelines.verify_shards import verify_shards

    quiet = cluster.pop("quiet")
    result = verify_shards(out, cluster=ClusterOptions(**cluster), quiet=quiet)
    if json_file is not None:
        found: dict[str, Any] = {"files": result.files, "samples": result.samples, "bytes": result.bytes}
        found["findings"] = [asdict(finding) for finding in result.findings]
        Store.at(json_file.absolute().parent).write_json(json_file.name, found)
    if result.findings:
        kinds = sorted({finding.kind for finding in result.findings})
        raise click.ClickException(
            f"{len(result.findings)} findings ({', '.join(kinds)}). Remove the receipts (.json) of the damaged shards, or "
            "captions/ where that is damaged, and run the commands that wrote them again."
        )
    click.echo(f"sound: {result.samples:,} samples in {result.files} files, {result.bytes / 1e6:,.1f} MB")
