"""`mvptr-data phrase-stats`."""

from __future__ import annotations

import sys

import click
from rich.console import Console

#: Characters of a line where standard output is no terminal.
FILE_WIDTH = 160


@click.command("phrase-stats")
@click.argument("vocabularies", nargs=-1, required=True)
@click.option("--out", required=True, help="The folder (or URL) that phrases.png and the CSV files go to.")
@click.option(
    "--against",
    multiple=True,
    metavar="VOCABULARY",
    help="Another vocabulary to hold them against: a folder, .parquet, or the authors' id2phrase.json. May be repeated.",
)
@click.option(
    "--lookup",
    multiple=True,
    metavar="PHRASE",
    help='Tell how often a phrase is said: its words separated by commas, "man, sit on, bench". May be repeated.',
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="Show so many of the most frequent of each kind.",
)
def phrase_stats_command(
    vocabularies: tuple[str, ...], out: str, against: tuple[str, ...], lookup: tuple[str, ...], top: int
) -> None:
    """Tell what VOCABULARIES hold and how much of each other's corpora they know (the paper's Tables 5 and 8).

    VOCABULARIES are folders of build-phrase-vocab or merge-phrase-vocabs. Printed are texts, images, phrases in all, unique and
    kept, their mean and median frequency, phrases a text and an image, the most frequent of each kind, and the share of each
    corpus that each vocabulary knows. The same numbers go to OUT as CSV files and as a picture, phrases.png.

    \b
    Example:
      mvptr-data phrase-stats coco flickr30k --out stats --against id2phrase.json --lookup "group, of, people"
    """
    from mvptr_data.storage import Store
    from pipelines.phrase_figure import draw_statistics
    from pipelines.phrase_report import render, write_csv
    from pipelines.phrase_stats import phrase_statistics

    wanted = [_words(phrase) for phrase in lookup]
    corpora = phrase_statistics(vocabularies, against=against, lookup=wanted, top=top)
    store = Store.at(out)
    names = write_csv(store, corpora)
    width = None if sys.stdout.isatty() else FILE_WIDTH
    Console(width=width, markup=False, emoji=False, highlight=False).print(render(corpora))
    # Last: whatever it meets, the numbers are there.
    store.write("phrases.png", draw_statistics(corpora))
    click.echo(f"\nwritten to {store.root}: phrases.png, {', '.join(names)}")


def _words(phrase: str) -> tuple[str, ...]:
    """`man, sit on, bench` -> its words; raises `BadParameter` where they are no phrase."""
    words = tuple(" ".join(word.lower().split()) for word in phrase.split(","))
    if not 1 <= len(words) <= 3 or not all(words):
        raise click.BadParameter(f"{phrase!r} is not one to three words separated by commas", param_hint="--lookup")
    return words
