"""`mvptr-train export-official`."""

from __future__ import annotations

import click


@click.command("export-official")
@click.argument("model")
@click.argument("out")
def export_official_command(model: str, out: str) -> None:
    """Write a MODEL folder as the MVPTR authors' code reads it, into a folder OUT.

    OUT gets pytorch_model.bin, config.json, vocab.txt and id2phrase.json. The head for masked phrases has no place there.

    \b
    Example:
      mvptr-train export-official runs/paper/stage-2 for-their-code
    """
    from mvptr_model.initialisation.official import export_official
    from mvptr_model.saved_model import load_model

    report = export_official(load_model(model), out)
    for line in report.lines():
        click.echo(line)
    click.echo(f"written to {out}")
