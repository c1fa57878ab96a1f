"""`mvptr-data export-phrase-vocab`."""

from __future__ import annotations

import click


@click.command("export-phrase-vocab")
@click.argument("vocabulary")
@click.argument("file")
def export_phrase_vocab_command(vocabulary: str, file: str) -> None:
    """Write VOCABULARY, a folder or file of ours or the authors' id2phrase.json, as FILE.

    FILE ends in .json for the authors' form, {"<id>": [word, ...]}, or in .parquet for ours. A vocabulary that came from the
    authors keeps its ids, holes included. One of ours gets ids from 30522 in order of rank: the rows its phrases have after
    BERT's words.

    \b
    Example:
      mvptr-data export-phrase-vocab coco id2phrase.json
    """
    from mvptr_data.errors import InputError
    from mvptr_data.phrases import PhraseVocabulary
    from mvptr_data.storage import Store
    from pipelines.counted_vocabulary import vocabulary_path

    forms = {"json": PhraseVocabulary.save_official, "parquet": PhraseVocabulary.save}
    folder, slash, name = file.rpartition("/")
    save = forms.get(name.rpartition(".")[2])
    if save is None:
        raise InputError(f"{file} ends in neither .json nor .parquet", "Its name says which form to write.")
    loaded = PhraseVocabulary.load(vocabulary_path(vocabulary))
    save(loaded, Store.at(folder or slash or "."), name)
    click.echo(f"{len(loaded):,} phrases in {file}")
