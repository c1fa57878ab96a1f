"""Others' checkpoints: tensors by name, with the settings and word pieces beside them. A pickle is never run.

    read_checkpoint("bert-base-uncased")      a name on the Hugging Face hub, or in its local cache
    read_checkpoint("models/bert")            a folder or URL with config.json, weights and word pieces
    read_checkpoint("epoch_20/pytorch_model.bin")

Old names of BERT's parameters become new ones (`LayerNorm.gamma` and `beta`; `module.` before all).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mvptr_data.errors import DamagedFileError, InputError
from mvptr_data.storage import Store, is_url
from mvptr_data.tensor_files import parse_tensors
from mvptr_model.word_pieces import WordPieces

#: Weights in a folder, the better first.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
#: What else is read where it is there: sizes, word pieces in the old form and the new, whether they are of lower-cased text.
SETTINGS, WORDS, TOKENIZER, TOKENIZER_SETTINGS = "config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json"
#: Suffixes of weights that are given as a file.
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_OLD_NAME = re.compile(r"(?<=LayerNorm\.)(gamma|beta)$")
_NEW_NAME = {"gamma": "weight", "beta": "bias"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """What was found at `where`: float tensors by name, `config.json` (empty where there is none), word pieces if any."""

    where: str
    tensors: dict[str, Tensor]
    settings: dict[str, Any]
    words: WordPieces | None


def read_checkpoint(source: str) -> Checkpoint:
    """From a folder, a URL, a file of weights, or a name on the Hugging Face hub.

    Raises `InputError` (nothing there, or not of lower-cased text), `DamagedFileError` (torn, or other things than tensors).
    """
    if not is_url(source) and not Path(source).exists() and not source.endswith(_SUFFIXES):
        source = _from_hub(source)
    if source.endswith(_SUFFIXES) and not (not is_url(source) and Path(source).is_dir()):
        folder, slash, name = source.rpartition("/")
        store = Store.at(folder or slash or ".")
    else:
        store = Store.at(source)
        found = [one for one in WEIGHTS if store.exists(one)]
        if not found:
            raise InputError(f"{store.root} has no weights", f"It should have {' or '.join(WEIGHTS)}.")
        name = found[0]
    return Checkpoint(
        where=store.path(name),
        tensors=_tensors(store, name),
        settings=_json(store, SETTINGS) or {},
        words=_word_pieces(store),
    )


def renamed(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Floating-point tensors alone, as float32, under today's names. Raises `DamagedFileError` where two become one."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = _OLD_NAME.sub(lambda old: _NEW_NAME[old[0]], name)
        if new in found:
            raise DamagedFileError(f"{where} has {new} twice, under an old and a new name", "Take one of them out.")
        if tensor.is_floating_point():
            found[new] = tensor.float()
    return found


def _tensors(store: Store, name: str) -> dict[str, Tensor]:
    where = store.path(name)
    try:
        data = store.read(name)
    except OSError as error:
        raise InputError(f"cannot read weights from {where}: {error.strerror or error}", "Check the path.") from error
    return renamed(parse_tensors(data, where), where)


def _json(store: Store, name: str) -> dict[str, Any] | None:
    try:
        return store.read_json(name)
    except FileNotFoundError:
        return None


def _word_pieces(store: Store) -> WordPieces | None:
    tokenizer = None if store.exists(WORDS) else _json(store, TOKENIZER)
    normalizer = (tokenizer or {}).get("normalizer")
    cased = isinstance(normalizer, Mapping) and normalizer.get("lowercase") is False
    if cased or (_json(store, TOKENIZER_SETTINGS) or {}).get("do_lower_case") is False:
        raise InputError(f"the word pieces at {store.root} tell capitals from small letters", "Give an uncased BERT.")
    if store.exists(WORDS):
        return WordPieces.load(store.path(WORDS))
    if tokenizer is None:
        return None
    model = tokenizer.get("model")
    ids = model.get("vocab") if isinstance(model, Mapping) and model.get("type") == "WordPiece" else None
    if not isinstance(ids, Mapping) or sorted(ids.values(), key=str) != sorted(range(len(ids)), key=str):
        raise InputError(f"{store.path(TOKENIZER)} has no word pieces", "Put BERT's vocab.txt beside it.")
    return WordPieces(sorted(ids, key=ids.__getitem__))


def _from_hub(name: str) -> str:
    """The local folder of a model on the hub, after what is needed of it was brought there."""
    if not _HUB_NAME.fullmatch(name):
        raise InputError(
            f"there is no checkpoint at {name!r}", "Give a folder, a URL, or a name on the Hugging Face hub."
        )
    # Not for everybody who reads a folder: it takes half a second.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    def bring(file: str) -> Path | None:
        try:
            return Path(hf_hub_download(name, file))
        except EntryNotFoundError:  # also where the hub is out of reach and the file not in the cache
            return None
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"there is no folder {name!r}, and on the Hugging Face hub: {reason}", "Check the name."
            ) from error

    weights = next((path for file in WEIGHTS if (path := bring(file)) is not None), None)
    if weights is None:
        raise InputError(
            f"there is no folder {name!r}, and neither the Hugging Face hub nor its local cache has its {' or '.join(WEIGHTS)}",
            "Check the name, or download the model on a machine that reaches the hub and give its folder.",
        )
    bring(SETTINGS)
    if bring(WORDS) is None:
        bring(TOKENIZER)
    bring(TOKENIZER_SETTINGS)
    return str(weights.parent)
