"""`mvptr-data add`."""

from __future__ import annotations

from typing import Any

import click

from pipelines.cli.extraction_options import extraction_arguments, extraction_options


@click.command("add")
@click.argument("images")
@click.argument("out")
@click.option(
    "--samples-per-shard", type=click.IntRange(1), help="Of the new shards.  [default: as the data set has it]"
)
@extraction_options
def add_command(images: str, out: str, samples_per_shard: int | None, **given: Any) -> None:
    """Append the images of IMAGES that the data set OUT does not have, as new shards, and extract their regions.

    Earlier shards are not touched; a folder that has grown may be given again. The detector must be the one OUT was extracted
    with. Then run write-shards, which publishes the larger data set.

    \b
    Example:
      mvptr-data add more-photos/ coco --detector vinvl
    """
    from pipelines.extract_regions import add_images

    add_images(images, out, samples_per_shard=samples_per_shard, **extraction_arguments(given))
