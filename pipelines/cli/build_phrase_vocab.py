"""`mvptr-data build-phrase-vocab`."""

from __future__ import annotations

from typing import Any

import click

from pipelines.cli.options import cluster_options
from pipelines.cluster import ClusterOptions


@click.command("build-phrase-vocab")
@click.argument("captions", nargs=-1, required=True)
@click.argument("out")
@click.option(
    "--min-sentences",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    help="Keep phrases found in at least so many texts.",
)
@click.option("--split", help="Count this split only.  [default: all that is not val or test]")
@click.option(
    "--caption-key", help="Where a record's image key is: a field, or a template such as {filepath}/{filename}."
)
@click.option(
    "--backend",
    default="rules",
    show_default=True,
    help="Finds phrases in parsed captions: rules, or sng (SceneGraphParser's own rules).",
)
@click.option(
    "--profile",
    default="paper",
    show_default=True,
    help="Which phrases: paper (attributes and relations), or official (as the authors' id2phrase, single objects too).",
)
@click.option("--spacy-model", help="An installed spaCy pipeline, by name or path, instead of the bundled parser.")
@click.option(
    "--partitions",
    type=click.IntRange(1),
    help="Count in at least so many tasks, but no more than texts; the result stays the same.  "
    "[default: one for 200,000 captions, about]",
)
@click.option(
    "--top", type=click.IntRange(0), default=30, show_default=True, help="Print so many of the most frequent phrases."
)
@cluster_options
def build_phrase_vocab_command(
    captions: tuple[str, ...],
    out: str,
    min_sentences: int,
    split: str | None,
    caption_key: str | None,
    backend: str,
    profile: str,
    spacy_model: str | None,
    partitions: int | None,
    top: int,
    **cluster: Any,
) -> None:
    """Parse CAPTIONS and count their phrases into OUT/phrase_vocab.parquet.

    CAPTIONS are COCO or Karpathy JSON, JSONL(.gz), TSV or Parquet, or folders of them. Needs neither images nor a plan.
    The parsed captions are kept in OUT/captions, so another threshold or split only counts again. OUT/phrase_counts.parquet
    has the rare phrases too: `merge-phrase-vocabs` needs them.

    \b
    Examples:
      mvptr-data build-phrase-vocab captions_train2017.json coco --min-sentences 50
      mvptr-data build-phrase-vocab captions_train2017.json coco-official --profile official
    """
    from pipelines.parse_captions import ParserChoice
    from pipelines.phrase_vocab import build_phrase_vocab

    quiet = cluster.pop("quiet")
    options = {"backend": backend, "profile": profile, "spacy_model": spacy_model}
    summary = build_phrase_vocab(
        captions,
        out,
        min_sentences=min_sentences,
        split=split,
        caption_key=caption_key,
        parser=ParserChoice(options=tuple(options.items())),
        partitions=partitions,
        cluster=ClusterOptions(**cluster),
        quiet=quiet,
    )
    click.echo(
        f"texts {summary.texts:,}  counted {summary.counted_texts:,}  phrases {summary.mentions:,}  "
        f"unique {summary.unique:,}  kept {summary.kept:,}"
    )
    for words, sentences in list(zip(summary.vocabulary.phrases, summary.vocabulary.sentences, strict=True))[:top]:
        click.echo(f"{sentences:>9,}  {' | '.join(words)}")
