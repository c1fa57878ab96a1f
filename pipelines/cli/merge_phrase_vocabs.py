"""`mvptr-data merge-phrase-vocabs`."""

from __future__ import annotations

import click


@click.command("merge-phrase-vocabs")
@click.argument("vocabularies", nargs=-1, required=True)
@click.argument("out")
@click.option(
    "--min-sentences",
    type=click.IntRange(1),
    help="Keep phrases found in at least so many texts of all together.  [default: as all of them do]",
)
@click.option("--allow-repeated", is_flag=True, help="Count caption files twice that two vocabularies have counted.")
@click.option("--quiet", is_flag=True, help="Say nothing; the log beside the output has it all.")
def merge_phrase_vocabs_command(
    vocabularies: tuple[str, ...], out: str, min_sentences: int | None, allow_repeated: bool, quiet: bool
) -> None:
    """Merge VOCABULARIES, counted from parts of a corpus, into that of the whole: OUT/phrase_vocab.parquet.

    VOCABULARIES are folders of build-phrase-vocab or merge-phrase-vocabs. Phrases that are rare in every part are counted
    too, so the result is that of all captions counted at once. OUT is a folder of its own.

    \b
    Example:
      mvptr-data merge-phrase-vocabs coco flickr30k gqa vocab --min-sentences 50
      mvptr-data write-shards coco --vocab vocab/phrase_vocab.parquet
    """
    from pipelines.merge_phrase_vocabs import merge_phrase_vocabs

    vocabulary = merge_phrase_vocabs(
        vocabularies, out, min_sentences=min_sentences, allow_repeated=allow_repeated, quiet=quiet
    )
    click.echo(f"unique {vocabulary.configuration['unique']:,}  kept {len(vocabulary):,}")
