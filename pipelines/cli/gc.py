"""`mvptr-data gc`."""

from __future__ import annotations

import click


@click.command("gc")
@click.argument("out")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@click.option(
    "--min-age",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="MINUTES",
    help="Leave what was written later: a worker that outlived its run may still be at it.",
)
def gc_command(out: str, dry_run: bool, min_age: float) -> None:
    """Remove the files of OUT that neither a receipt nor the published manifest names.

    They are earlier generations, and what killed runs left.

    After a retry, publish with write-shards first: until then the earlier generation is what readers read.

    \b
    Example:
      mvptr-data gc coco --dry-run
    """
    from pipelines.collect_garbage import collect_garbage

    garbage = collect_garbage(out, dry_run=dry_run, younger_than=min_age * 60)
    for name in garbage.names:
        click.echo(name)
    would = "would free" if dry_run else "freed"
    click.echo(f"{len(garbage.names)} files, {would} {garbage.bytes / 1e6:,.1f} MB")
    if garbage.young:
        click.echo(f"{garbage.young} more were written in the last {min_age:g} minutes and stay (--min-age)")
    if garbage.ageless:
        click.echo(f"this store does not say when files were written: {garbage.ageless} were taken whatever their age")
