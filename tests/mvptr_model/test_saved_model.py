"""A saved model is the model, is the same bytes each time, and is refused where a byte is not as promised."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mvptr_data.errors import (
    ConfigurationMismatchError,
    DamagedFileError,
    FormatVersionError,
    IncompleteError,
    InputError,
    OutputError,
)
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store, digest
from mvptr_model.inputs import InputSettings
from mvptr_model.saved_model import MODEL, PHRASES, WEIGHTS, WORDS, SavedModel, check_vocabulary, load_model, save_model
from mvptr_model.stream.reader import ShardReader
from mvptr_model.word_pieces import WordPieces
from tests.mvptr_model.random_batches import random_batch, small_configuration, small_model

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
PIECES = WordPieces([*SPECIAL, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase[:9])])
INPUTS = InputSettings(max_words=10, max_phrases=4, max_tags=9, max_regions=6)


def vocabulary(count: int = 9) -> PhraseVocabulary:
    counts = [((letter, "dog"), 10) for letter in string.ascii_lowercase[:count]]
    return PhraseVocabulary.from_counts(counts, {"min_sentences": 2})


def saved_model(preset: str = "paper", **changes: Any) -> SavedModel:
    return SavedModel(small_model(small_configuration(preset, **changes)), PIECES, vocabulary(), INPUTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", saved_model())
    return tmp_path / "model"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_what_is_loaded_is_what_was_saved(preset: str, tmp_path: Path) -> None:
    given = saved_model(preset)
    save_model(tmp_path / "model", given)
    found = load_model(tmp_path / "model")
    assert found.model.configuration == given.model.configuration and found.inputs == INPUTS
    assert (found.words.pieces, found.phrases) == (PIECES.pieces, given.phrases)
    assert list(found.model.state_dict()) == list(given.model.state_dict())
    for name, tensor in given.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor), name
    assert not found.model.training and all(one.requires_grad for one in found.model.parameters())
    batch = random_batch(3, 5)
    losses = [model(batch, stage=2, seed=1).losses for model in (given.model, found.model)]
    assert losses[0].keys() == losses[1].keys()
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_keep_their_type(dtype: torch.dtype, tmp_path: Path) -> None:
    given = saved_model()
    given.model.to(dtype)
    save_model(tmp_path / "model", given)
    assert {tensor.dtype for tensor in load_model(tmp_path / "model").model.parameters()} == {dtype}


def test_the_same_model_is_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "again", saved_model())
    assert contents(folder) == contents(tmp_path / "again")
    assert sorted(contents(folder)) == sorted([MODEL, WEIGHTS, WORDS, PHRASES])
    save_model(tmp_path / "loaded", load_model(folder))
    assert contents(folder) == contents(tmp_path / "loaded")


def test_a_model_is_not_written_over(folder: Path) -> None:
    before = contents(folder)
    save_model(folder, saved_model())  # the same one
    other = saved_model()
    with torch.no_grad():
        other.model.logit_scale += 1
    with pytest.raises(InputError, match="holds another model"):
        save_model(folder, other)
    assert contents(folder) == before
    save_model(folder, other, replace=True)
    assert torch.equal(load_model(folder).model.logit_scale, other.model.logit_scale)


def test_a_torn_folder_is_written_anew(folder: Path) -> None:
    """What a killed writer left: files without `model.json`."""
    before = contents(folder)
    (folder / MODEL).unlink()
    (folder / WEIGHTS).write_bytes(b"half")
    save_model(folder, saved_model())
    assert contents(folder) == before


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, WORDS, PHRASES])
def test_every_file_is_checked(name: str, folder: Path) -> None:
    whole = (folder / name).read_bytes()
    for place in (3, len(whole) // 2, len(whole) - 3):
        (folder / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises((DamagedFileError, FormatVersionError), match=name):
            load_model(folder)
    (folder / name).write_bytes(whole[:-1])
    if name != MODEL:  # whose last byte is a line's end
        with pytest.raises(DamagedFileError, match=name):
            load_model(folder)
    (folder / name).unlink()
    with pytest.raises(IncompleteError if name == MODEL else DamagedFileError, match=r"no model|missing"):
        load_model(folder)


def signed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Alter `model.json` and give it its digest, as another program might."""
    found = json.loads((folder / MODEL).read_text())
    change(found)
    found["digest"] = digest({name: value for name, value in found.items() if name != "digest"})
    (folder / MODEL).write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found["configuration"].update(layers=10**9), "lacks tensors"),
        (lambda found: found["configuration"].update(hidden_size=10**9, heads=1), r"not \["),
        (lambda found: found["configuration"].update(layers=1, wpg_layer=1), "unknown tensor"),
        (lambda found: found["configuration"].update(inputs=[["w"]]), "describes no model"),
        (lambda found: found["configuration"].update(surprise=1), "surprise"),
        (lambda found: found["configuration"].update(tied_decoders=False), "has no tensor"),
        (lambda found: found["inputs"].update(max_words="ten"), "max_words is 'ten'"),
        (lambda found: found["inputs"].update(max_words=True), "max_words is True"),
        (lambda found: found["inputs"].update(max_words=99), "positions"),
        (lambda found: found["inputs"].pop("packed"), "packed"),
        (lambda found: found["files"].pop(WORDS), "lacks files"),
        (lambda found: found["phrases"].update(digest=""), "other phrases"),
    ],
)
def test_a_signed_description_is_checked_too(
    change: Callable[[dict[str, Any]], object], message: str, folder: Path
) -> None:
    signed(folder, change)
    with pytest.raises(DamagedFileError, match=message):
        load_model(folder)


def test_another_version_is_named(folder: Path) -> None:
    signed(folder, lambda found: found.update(version=2))
    with pytest.raises(FormatVersionError, match="version 2; this release reads 1"):
        load_model(folder)


def test_parts_that_do_not_fit_are_refused() -> None:
    given = saved_model()
    with pytest.raises(InputError, match="5 word pieces"):
        replace(given, words=WordPieces(SPECIAL))
    with pytest.raises(InputError, match="10 phrases"):
        replace(given, phrases=vocabulary(10))
    with pytest.raises(InputError, match="40 places"):
        replace(given, inputs=InputSettings())


def test_rows_beyond_the_phrases_are_kept(tmp_path: Path) -> None:
    given = replace(saved_model(), phrases=vocabulary(4))
    save_model(tmp_path / "model", given)
    assert len(load_model(tmp_path / "model").phrases) == 4


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="no folder"):
        save_model(tmp_path / "file", saved_model())


def test_urls(folder: Path) -> None:
    save_model("memory://models/one", load_model(folder))
    found = load_model("memory://models/one")
    assert torch.equal(found.model.logit_scale, load_model(folder).model.logit_scale)
    assert Store.at("memory://models/one").read(MODEL) == (folder / MODEL).read_bytes()


def test_a_model_takes_only_data_with_its_phrases(published: Path) -> None:
    with ShardReader(str(published)) as reader:
        own = reader.vocabulary()
    check_vocabulary(own, str(published))
    check_vocabulary(vocabulary(0), str(published))
    swapped = replace(own, phrases=(own.phrases[1], own.phrases[0], *own.phrases[2:]))
    for other in (vocabulary(), swapped):
        with pytest.raises(ConfigurationMismatchError, match="another phrase vocabulary"):
            check_vocabulary(other, str(published))
