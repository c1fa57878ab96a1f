"""`mvptr-train train-word-pieces`."""

from __future__ import annotations

import click


@click.command("train-word-pieces")
@click.argument("captions", nargs=-1, required=True)
@click.argument("out")
@click.option(
    "--size", type=click.IntRange(1), default=30_522, show_default=True, help="Word pieces at most, special ones too."
)
@click.option(
    "--alphabet", type=click.IntRange(1), default=1000, show_default=True, help="Keep so many frequent characters."
)
@click.option(
    "--least", type=click.IntRange(1), default=2, show_default=True, help="Merge what comes at least so often."
)
@click.option("--split", help="Captions of this split only.  [default: all that are not of val or test]")
@click.option(
    "--caption-key", help="Where a record's image key is: a field, or a template such as {filepath}/{filename}."
)
@click.option("--quiet", is_flag=True, help="Say nothing.")
def train_word_pieces_command(
    captions: tuple[str, ...],
    out: str,
    size: int,
    alphabet: int,
    least: int,
    split: str | None,
    caption_key: str | None,
    quiet: bool,
) -> None:
    """Train a word-piece vocabulary on CAPTIONS and write it to OUT, in the form of BERT's vocab.txt.

    CAPTIONS are data sets, or COCO or Karpathy JSON, JSONL(.gz), TSV or Parquet. The same captions give the same bytes. A
    model that starts from scratch needs it; one that starts from BERT has BERT's.

    \b
    Examples:
      mvptr-train train-word-pieces coco vocab.txt
      mvptr-train train-word-pieces captions_train2017.json vocab.txt --size 8000
    """
    from pipelines.train_word_pieces import write_word_pieces

    made = write_word_pieces(
        captions, out, size=size, alphabet=alphabet, least=least, split=split, caption_key=caption_key, quiet=quiet
    )
    click.echo(f"{made.words.size:,} word pieces of {made.texts:,} texts in {made.path}")
    if made.left_out or made.faults:
        click.echo(f"left out: {made.left_out:,} texts of other splits, {made.faults:,} records without a caption")
    if made.words.size < size:
        click.echo(f"no more pieces than these come {least} times or more")
