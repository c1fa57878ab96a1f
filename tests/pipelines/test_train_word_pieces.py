"""Word pieces of data sets and caption files, and the commands that take weights in and out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mvptr_data.errors import DamagedFileError, IncompleteError, InputError
from mvptr_model.initialisation.scratch import from_scratch
from mvptr_model.inputs import InputSettings
from mvptr_model.saved_model import load_model, save_model
from mvptr_model.stream.reader import ShardReader
from mvptr_model.word_pieces import WordPieces
from pipelines.train_cli.export_official import export_official_command
from pipelines.train_cli.import_official import import_official_command
from pipelines.train_cli.train_word_pieces import train_word_pieces_command
from pipelines.train_word_pieces import write_word_pieces
from tests.conftest import World


def test_a_data_set_and_its_caption_file_give_the_same_bytes(world: World, published: Path, tmp_path: Path) -> None:
    made = write_word_pieces([str(published)], str(tmp_path / "one.txt"), size=300, quiet=True)
    from_file = write_word_pieces([str(world.captions)], f"{tmp_path}/folder/", size=300, quiet=True)
    assert (tmp_path / "one.txt").read_bytes() == (tmp_path / "folder" / "vocab.txt").read_bytes()
    assert WordPieces.load(from_file.path).pieces == made.words.pieces
    with ShardReader(str(published)) as reader:
        texts = [
            caption.text for sample in reader for caption in sample.captions if sample.split not in ("val", "test")
        ]
        held_out = sum(len(sample.captions) for sample in reader if sample.split in ("val", "test"))
    assert (made.texts, made.left_out, made.faults) == (len(texts), held_out, 0)
    unknown = made.words.pieces.index("[UNK]")
    assert texts and not any(unknown in made.words.encode(text).ids for text in texts)


def test_held_out_captions_are_not_looked_at(tmp_path: Path) -> None:
    rows = [
        {"image": "a.jpg", "caption": "a dog a dog", "split": "train"},
        {"image": "b.jpg", "caption": "a &amp; zebra zebra", "split": "val"},
        {"image": "c.jpg", "caption": "a cat cat", "split": None},
    ]
    captions = tmp_path / "captions.jsonl"
    captions.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    made = write_word_pieces([str(captions)], str(tmp_path / "a.txt"), quiet=True)
    assert {"dog", "cat"} <= set(made.words.pieces) and not any("z" in piece for piece in made.words.pieces)
    assert (made.texts, made.left_out) == (2, 1)
    held_out = write_word_pieces([str(captions)], str(tmp_path / "b.txt"), split="val", quiet=True)
    assert {"zebra", "&"} <= set(held_out.words.pieces) and "dog" not in held_out.words.pieces


def test_captions_that_are_not_there_or_damaged(data_set: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        write_word_pieces([str(tmp_path / "nowhere")], str(tmp_path / "vocab.txt"), quiet=True)
    with pytest.raises(InputError, match="no captions are given"):
        write_word_pieces([], str(tmp_path / "vocab.txt"), quiet=True)
    bucket = data_set / "captions" / "00000.parquet"
    bucket.write_bytes(bucket.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match="captions"):
        write_word_pieces([str(data_set)], str(tmp_path / "vocab.txt"), quiet=True)
    shutil.rmtree(data_set / "captions")
    with pytest.raises(IncompleteError, match="has no parsed captions"):
        write_word_pieces([str(data_set)], str(tmp_path / "vocab.txt"), quiet=True)
    assert not (tmp_path / "vocab.txt").exists()


def test_the_command_says_what_it_made(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "vocab.txt"
    arguments = [str(published), str(out), "--size", "100000", "--quiet"]
    result = CliRunner().invoke(train_word_pieces_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert f"{WordPieces.load(str(out)).size:,} word pieces of" in result.stdout
    assert "no more pieces than these come 2 times or more" in result.stdout


def test_out_and_in_by_command(published: Path, tmp_path: Path) -> None:
    """A model of ours with the data set's phrases, to the authors' form, and back."""
    words = write_word_pieces([str(published)], str(tmp_path / "vocab.txt"), size=300, quiet=True).words
    with ShardReader(str(published)) as reader:
        phrases = reader.vocabulary()
    sizes = {"hidden_size": 16, "heads": 4, "feed_forward_size": 32, "layers": 1, "wpg_layer": 1, "positions": 64}
    given = from_scratch(words, phrases, settings=sizes, inputs=InputSettings())
    save_model(tmp_path / "model", given)
    runner = CliRunner()
    exported = runner.invoke(export_official_command, [str(tmp_path / "model"), str(tmp_path / "theirs")])
    assert exported.exit_code == 0 and "not used: phrase_mcr.bias" in exported.stdout
    options = ["--phrases", str(tmp_path / "model" / "phrase_vocab.parquet")]
    imported = runner.invoke(import_official_command, [str(tmp_path / "theirs"), str(tmp_path / "again"), *options])
    assert imported.exit_code == 0 and f"and {len(phrases):,} phrases in" in imported.stdout
    assert "fresh, for it has none: phrase_mcr.bias" in imported.stdout
    found, own = load_model(tmp_path / "again"), given.model.state_dict()
    assert found.phrases.digest == phrases.digest and found.model.configuration.heads == 4
    held = [name for name in own if not name.startswith("phrase_mcr.")]
    assert all(torch.equal(found.model.state_dict()[name], own[name]) for name in held)
