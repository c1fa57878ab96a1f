"""`mvptr-train plot`."""

from __future__ import annotations

import click


@click.command("plot")
@click.argument("run")
@click.option("--out", help="The PNG file (or URL).  [default: curves.png in RUN]")
def plot_command(run: str, out: str | None) -> None:
    """Draw the learning curves of RUN, the output of pretrain: losses, accuracies, learning rate, gradients, speed.

    \b
    Example:
      mvptr-train plot runs/paper --out curves.png
    """
    from mvptr_data.storage import Store
    from pipelines.learning_curves import draw_curves

    picture = draw_curves(run)
    folder, slash, name = (out or f"{run.rstrip('/')}/curves.png").rpartition("/")
    store = Store.at(folder or slash or ".")
    store.write(name, picture)
    click.echo(store.path(name))
