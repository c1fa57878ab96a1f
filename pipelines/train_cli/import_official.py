"""`mvptr-train import-official`."""

from __future__ import annotations

import click


@click.command("import-official")
@click.argument("checkpoint")
@click.argument("out")
@click.option(
    "--phrases",
    help="The authors' id2phrase.json, which says whose rows are whose.  [default: the model knows no phrase]",
)
@click.option("--words", help="BERT's vocab.txt.  [default: the one beside the checkpoint]")
@click.option("--heads", type=click.IntRange(1), help="Attention heads.  [default: as config.json says, or one for 64]")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides what the checkpoint has nothing for.")
def import_official_command(
    checkpoint: str, out: str, phrases: str | None, words: str | None, heads: int | None, seed: int
) -> None:
    """Turn the MVPTR authors' CHECKPOINT into a model folder OUT.

    CHECKPOINT is a folder with pytorch_model.bin or model.safetensors, or such a file. Nothing in it is run. The model has the
    preset official. Data sets for it are published with `write-shards --vocab id2phrase.json`.

    \b
    Example:
      mvptr-train import-official pretrained/base mvptr-base --phrases id2phrase.json
    """
    from mvptr_data.phrases import PhraseVocabulary
    from mvptr_model.initialisation.official import import_official
    from mvptr_model.saved_model import save_model
    from mvptr_model.word_pieces import WordPieces

    saved, report = import_official(
        checkpoint,
        None if phrases is None else PhraseVocabulary.load(phrases),
        words=None if words is None else WordPieces.load(words),
        heads=heads,
        seed=seed,
    )
    save_model(out, saved)
    for line in report.lines():
        click.echo(line)
    parameters = sum(parameter.numel() for parameter in saved.model.parameters())
    click.echo(
        f"{parameters:,} parameters, {saved.words.size:,} word pieces and {len(saved.phrases):,} phrases in {out}"
    )
