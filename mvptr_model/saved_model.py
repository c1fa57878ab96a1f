"""A model on disk: a folder with all that it takes to use it.

    weights.safetensors     every parameter under its name (the authors' names), in the type it has
    vocab.txt               word pieces, one a line: rows 0 to V - 1 of the embedding table
    phrase_vocab.parquet    phrases by rank: the rows after them
    model.json              version, configuration, input settings, bytes and sha256 of the others; written last

    save_model("coco-model", SavedModel(model, words, phrases, inputs))
    saved = load_model("coco-model")
    check_vocabulary(saved.phrases, "coco")

Shape legend: V word pieces, F rows of the embedding table after them, P phrases of the vocabulary.

P may be less than F: rows after the last phrase stand for nothing, and no input has them (`initialisation/official.py`). The same
model gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mvptr_data.dataset import layout
from mvptr_data.dataset.forms import COUNT, OBJECT, TEXT, Form, check_form
from mvptr_data.dataset.manifest import load_manifest
from mvptr_data.errors import (
    ConfigurationMismatchError,
    DamagedFileError,
    FormatVersionError,
    IncompleteError,
    InputError,
    OutputError,
)
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store, canonical_json, digest, parse_json
from mvptr_model.configuration import ModelConfiguration
from mvptr_model.inputs import InputSettings
from mvptr_model.model import Mvptr
from mvptr_model.word_pieces import WordPieces

#: Of `model.json` and what it promises. Another one is a CHECKPOINT change.
MODEL_VERSION = 1
MODEL, WEIGHTS, WORDS, PHRASES = "model.json", "weights.safetensors", "vocab.txt", layout.PHRASE_VOCAB

_REMEDY = "Get the folder again, or write it again."
_FILE: Form = {"bytes": COUNT, "sha256": TEXT}
_FORM: Form = {
    "configuration": OBJECT,
    "inputs": OBJECT,
    "files": dict.fromkeys((WEIGHTS, WORDS, PHRASES), _FILE),
    "phrases": {"count": COUNT, "digest": TEXT},
    "digest": TEXT,
}


@dataclass(frozen=True, slots=True, eq=False)
class SavedModel:
    """A model with the vocabularies that its embedding table has rows for, and the limits of its inputs.

    Raises `InputError` where they do not fit together.
    """

    model: Mvptr
    words: WordPieces
    phrases: PhraseVocabulary
    inputs: InputSettings

    def __post_init__(self) -> None:
        configuration = self.model.configuration
        if self.words.size != configuration.word_rows:
            raise InputError(
                f"there are {self.words.size:,} word pieces, and the model has rows for {configuration.word_rows:,}",
                "Take the word pieces that the model was made with.",
            )
        if len(self.phrases) > configuration.phrase_rows:
            raise InputError(
                f"there are {len(self.phrases):,} phrases, and the model has rows for {configuration.phrase_rows:,}",
                "Take the phrase vocabulary that the model was made with.",
            )
        longest = max(self.inputs.text_places, self.inputs.max_tags)
        if longest > configuration.positions:
            raise InputError(
                f"sequences of {longest} places have more than the model's {configuration.positions} positions",
                "Lower max_words, max_phrases or max_tags.",
            )


def save_model(root: str | os.PathLike[str], saved: SavedModel, *, replace: bool = False) -> None:
    """Write a model into a folder or URL, `model.json` last. A folder that has this very model stays as it is.

    `replace`: the folder's other model goes; until the new one is whole, the folder then has none. Raises `InputError` where
    another model is in the folder, `OutputError`.
    """
    store = Store.at(root)
    weights, words = _weights(saved.model), piece_lines(saved.words)
    if _is_there(store, saved, weights):
        return
    if store.exists(MODEL):
        if not replace:
            raise InputError(f"{store.root} holds another model", "Give another folder, or remove that one.")
        store.remove(MODEL)
    try:
        store.write(WEIGHTS, weights)
        store.write(WORDS, words)
        saved.phrases.save(store, PHRASES)
        promised = {
            "version": MODEL_VERSION,
            "configuration": parse_json(saved.model.configuration.to_json(), MODEL, _REMEDY),
            "inputs": asdict(saved.inputs),
            "files": {WEIGHTS: _facts(weights), WORDS: _facts(words), PHRASES: _facts(store.read(PHRASES))},
            "phrases": {"count": len(saved.phrases), "digest": saved.phrases.digest},
        }
        store.write_json(MODEL, promised | {"digest": digest(promised)})
    except (NotADirectoryError, FileExistsError) as error:
        raise OutputError(f"{store.root} is no folder", "Give another one.") from error


def load_model(root: str | os.PathLike[str]) -> SavedModel:
    """The model in a folder or at a URL, on the CPU, for evaluation (`model.train()` turns dropout on).

    Raises `IncompleteError` (there is none), `FormatVersionError`, `DamagedFileError` naming the file.
    """
    store = Store.at(root)
    promised = _promised(store)
    where = store.path(MODEL)
    try:
        configuration = ModelConfiguration.from_json(canonical_json(promised["configuration"]), where)
        inputs = _input_settings(promised["inputs"])
    except (InputError, TypeError) as error:
        raise DamagedFileError(f"{where} describes no model ({error})", _REMEDY) from error
    weights = _checked(store, WEIGHTS, promised)
    for name in (WORDS, PHRASES):
        _checked(store, name, promised)
    model = _model(configuration, weights, store.path(WEIGHTS))
    try:
        words = WordPieces.load(store.path(WORDS))
        phrases = PhraseVocabulary.load(store.path(PHRASES))
        saved = SavedModel(model.eval(), words, phrases, inputs)
    except InputError as error:
        raise DamagedFileError(f"{store.root} has parts that do not fit ({error})", _REMEDY) from error
    if promised["phrases"] != {"count": len(phrases), "digest": phrases.digest}:
        raise DamagedFileError(f"{store.path(PHRASES)} has other phrases than {MODEL} says", _REMEDY)
    return saved


def check_vocabulary(phrases: PhraseVocabulary, root: str) -> None:
    """Raises `ConfigurationMismatchError` where the data set at `root` was published with other phrases, or in other order.

    Its texts would be read without an error, each phrase as another one. A model without phrases takes any data set. Further
    raises what `load_manifest` does.
    """
    store = Store.at(root)
    found = load_manifest(store)["phrase_vocab"]
    if len(phrases) and found["digest"] != phrases.digest:
        raise ConfigurationMismatchError(
            f"the data set {store.root} has another phrase vocabulary ({found['phrases']:,} phrases, digest "
            f"{found['digest'][:12]}) than the model ({len(phrases):,}, {phrases.digest[:12]})",
            "Publish it with the model's: `mvptr-data write-shards --vocab MODEL/phrase_vocab.parquet`.",
        )


def piece_lines(words: WordPieces) -> bytes:
    """`vocab.txt`, a piece a line. Raises `InputError` for a piece that has more than one."""
    for piece in words.pieces:
        if "\n" in piece:
            raise InputError(f"the word piece {piece!r} has a line break", "Leave it out.")
    return "".join(f"{piece}\n" for piece in words.pieces).encode()


def _weights(model: Mvptr) -> bytes:
    # Without metadata: safetensors keeps several entries in no fixed order. Tensors it sorts itself.
    return save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()})


def _facts(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _is_there(store: Store, saved: SavedModel, weights: bytes) -> bool:
    """Whether the folder holds this model already, every file as promised."""
    try:
        promised = _promised(store)
        for name in (WEIGHTS, WORDS, PHRASES):
            _checked(store, name, promised)
    except (IncompleteError, DamagedFileError, FormatVersionError):
        return False
    return (
        promised["configuration"] == parse_json(saved.model.configuration.to_json(), MODEL, _REMEDY)
        and promised["inputs"] == asdict(saved.inputs)
        and promised["files"][WEIGHTS] == _facts(weights)
        and promised["files"][WORDS] == _facts(piece_lines(saved.words))
        and promised["phrases"]["digest"] == saved.phrases.digest
    )


def _promised(store: Store) -> dict[str, Any]:
    """`model.json`, checked but for the settings in it."""
    where = store.path(MODEL)
    try:
        found = store.read_json(MODEL)
    except FileNotFoundError as error:
        raise IncompleteError(f"there is no model at {store.root}", "Give a folder that has a model.json.") from error
    if found.get("version") != MODEL_VERSION:
        raise FormatVersionError(
            f"{where} has model format version {found.get('version')!r}; this release reads {MODEL_VERSION}",
            "Use the release that wrote it.",
        )
    check_form(found, _FORM, where, _REMEDY)
    if digest({name: value for name, value in found.items() if name != "digest"}) != found["digest"]:
        raise DamagedFileError(f"{where} does not have the digest it promises", _REMEDY)
    return found


def _checked(store: Store, name: str, promised: Mapping[str, Any]) -> bytes:
    """The bytes of a file, which are those that `model.json` promises."""
    wanted = promised["files"][name]
    size = store.size(name)
    if size != wanted["bytes"]:
        what = "is missing" if size is None else f"has {size:,} bytes, not {wanted['bytes']:,}"
        raise DamagedFileError(f"{store.path(name)} {what}", _REMEDY)
    data = store.read(name)
    if _facts(data) != {"bytes": wanted["bytes"], "sha256": wanted["sha256"]}:
        raise DamagedFileError(f"{store.path(name)} does not have the sha256 that {MODEL} promises", _REMEDY)
    return data


def _input_settings(stored: dict[str, Any]) -> InputSettings:
    defaults = asdict(InputSettings())
    if stored.keys() != defaults.keys():
        raise InputError(
            f"its inputs are {', '.join(sorted(stored))}", f"They should be {', '.join(sorted(defaults))}."
        )
    for name, value in stored.items():
        if type(value) is not type(defaults[name]):
            raise InputError(f"its {name} is {value!r}", f"It should be like {defaults[name]!r}.")
    return InputSettings(**{field.name: stored[field.name] for field in fields(InputSettings)})


def _model(configuration: ModelConfiguration, data: bytes, where: str) -> Mvptr:
    """The model with these weights, each name and shape checked before memory is asked for."""
    try:
        weights = load(data)
    except SafetensorError as error:
        raise DamagedFileError(f"{where} holds no tensors that can be read ({error})", _REMEDY) from error
    if configuration.joint_layers > len(weights):  # without end, it might be
        raise DamagedFileError(f"{where} lacks tensors of {configuration.joint_layers:,} layers", _REMEDY)
    with torch.device("meta"):
        model = Mvptr(configuration)
    _check_tensors(model.state_dict(), weights, where)
    model.load_state_dict(weights, assign=True)
    return model


def _check_tensors(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], where: str) -> None:
    for name in sorted(wanted.keys() ^ found.keys()):
        raise DamagedFileError(f"{where} {'has no' if name in wanted else 'has an unknown'} tensor {name}", _REMEDY)
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape or not tensor.is_floating_point():
            raise DamagedFileError(
                f"{where} has {tensor.dtype} {list(tensor.shape)} as {name}, not {list(wanted[name].shape)} floats",
                _REMEDY,
            )
