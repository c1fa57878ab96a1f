"""`mvptr-data inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from mvptr_data.storage import Store


@click.command("inspect")
@click.argument("out")
@click.option("--key", required=True, help="The sample's key, as in the plan.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The PNG to write.  [default: the key's last part, here]",
)
@click.option(
    "--regions", type=click.IntRange(0), default=20, show_default=True, help="Draw so many of the best regions."
)
def inspect_command(out: str, key: str, output: Path | None, regions: int) -> None:
    """Draw one sample of OUT: boxes, tags, attributes, captions and phrases.

    \b
    Example:
      mvptr-data inspect coco --key 000000000285 --output bear.png
    """
    from mvptr_data.keys import encode_key
    from pipelines.inspect_sample import draw_sample, load_sample

    sample = load_sample(out, key)
    target = output or Path(f"{encode_key(key).rsplit('/', 1)[-1]}.png")
    with Store.at(target.absolute().parent).writing(target.name) as file:
        draw_sample(sample, most_regions=regions).save(file, format="PNG")
    click.echo(str(target))
