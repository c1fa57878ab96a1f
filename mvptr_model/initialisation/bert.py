"""A model that starts from BERT (MVPTR 4.1, A.2.1): its first half twice, its second half once.

    saved, report = from_bert("bert-base-uncased", PhraseVocabulary.load("coco/phrase_vocab.parquet"))

| of BERT | becomes |
|---|---|
| layers 0-5 | the textual and the visual encoder, each |
| layers 6-11 | the multi-modal encoder; with `merged_attention` it takes all twelve |
| embeddings, pooler | the same |
| rows of word pieces | rows of word pieces; a phrase starts as the mean of its word pieces' rows |
| transform and bias of the MLM head | those of all three heads; a phrase's bias is the mean of its word pieces' |

So a phrase's first logit is the mean of its word pieces'. Any BERT will do that has an even number of layers. Region embedding,
VSC projections and ITM head have nothing to start from; BERT's next-sentence head judges another question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mvptr_data.errors import InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_model.configuration import ModelConfiguration
from mvptr_model.encoders import LAYER_NORM_EPS, SEGMENTS
from mvptr_model.initialisation.checkpoint import Checkpoint, read_checkpoint
from mvptr_model.initialisation.weights import Report, configured, fill, fresh_model, phrase_rows, shortened
from mvptr_model.inputs import InputSettings
from mvptr_model.model import Mvptr
from mvptr_model.saved_model import SavedModel
from mvptr_model.word_pieces import WordPieces

_TABLE = "bert.embeddings.word_embeddings.weight"
_HEAD = "cls.predictions."
#: What our layers have built in, by its name in config.json.
_BUILT_IN: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "layer_norm_eps": LAYER_NORM_EPS,
    "position_embedding_type": "absolute",
    "type_vocab_size": SEGMENTS,
}
_THEIR_LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.")
_OUR_LAYER = re.compile(r"bert\.(txt|vis|mul)_encoder\.layer\.(\d+)\.(.+)")
_OF_A_HEAD = re.compile(r"(?:cls\.predictions|half_mlm|phrase_mcr)\.(transform\..+|bias|decoder\.weight)")


def from_bert(
    source: str,
    phrases: PhraseVocabulary,
    *,
    settings: Mapping[str, Any] | None = None,
    inputs: InputSettings | None = None,
    seed: int = 0,
) -> tuple[SavedModel, Report]:
    """A model of BERT's sizes; `source` as for `read_checkpoint`, `settings` as for `configured`; `seed` decides what is fresh.

    Raises `InputError` (no such checkpoint, no BERT of this kind, sizes in `settings` that it has not), `DamagedFileError`.
    """
    checkpoint = read_checkpoint(source)
    theirs, where = _with_prefix(checkpoint.tensors), checkpoint.where
    words = _words(checkpoint, theirs)
    sizes = _sizes(checkpoint, theirs)
    configuration = configured(settings or {}, words, phrases, sizes)
    if configuration.layers != sizes["layers"]:  # else a part of a larger BERT would pass for a whole one
        raise InputError(
            f"{where} gives {sizes['layers']} layers to an encoder, half of its own, and not {configuration.layers}",
            "Leave the model's sizes to the checkpoint.",
        )
    model = fresh_model(configuration, seed)
    origin = {name: found for name in model.state_dict() if (found := _origin(name, configuration)) in theirs}
    _check_whole(model, origin, where)
    values = {name: theirs[found] for name, found in origin.items()}
    values[_TABLE] = torch.cat([theirs[_TABLE], phrase_rows(theirs[_TABLE], words, phrases)])
    if (bias := values.get(_HEAD + "bias")) is not None and bias.shape == (words.size,):
        values["phrase_mcr.bias"] = phrase_rows(bias[:, None], words, phrases)[:, 0]
    missing = fill(model, values, where)
    unexpected = theirs.keys() - origin.values() - {_TABLE, _HEAD + "decoder.weight", _HEAD + "decoder.bias"}
    report = Report(source=where, missing=missing, unexpected=tuple(sorted(unexpected)))
    return SavedModel(model, words, phrases, inputs or InputSettings()), report


def _with_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names that they have in a BERT with its pre-training heads, under which `bert.` begins the others'.

    What is tied is stored once: a head then has its decoder by the table's name, or its bias by the decoder's.
    """
    bare = not any(name.startswith("bert.") for name in tensors)
    found = {f"bert.{name}" if bare and not name.startswith("cls.") else name: one for name, one in tensors.items()}
    if _HEAD + "transform.dense.weight" in found:
        for name, same in (("bias", _HEAD + "decoder.bias"), ("decoder.weight", _TABLE)):
            if same in found:
                found.setdefault(_HEAD + name, found[same])
    return found


def _origin(name: str, configuration: ModelConfiguration) -> str:
    """What a parameter of ours is called in BERT where it starts from one; else a name that BERT does not have."""
    if found := _OUR_LAYER.fullmatch(name):
        first = configuration.layers if found[1] == "mul" and not configuration.merged_attention else 0
        return f"bert.encoder.layer.{first + int(found[2])}.{found[3]}"
    if (found := _OF_A_HEAD.fullmatch(name)) and name != "phrase_mcr.bias":
        return _HEAD + found[1]
    # The table is put together of words and phrases.
    return name if name.startswith("bert.") and name != _TABLE else ""


def _check_whole(model: Mvptr, origin: Mapping[str, str], where: str) -> None:
    """Raises `InputError` where embeddings or layers are not all there; a pooler or head may be missing."""
    needed = [name for name in model.state_dict() if "_encoder." in name or name.startswith("bert.embeddings.")]
    if lacking := [name for name in needed if name not in origin and name != _TABLE]:
        raise InputError(f"{where} has nothing for {shortened(lacking)}", "Give the checkpoint of a whole BERT.")


def _words(checkpoint: Checkpoint, theirs: Mapping[str, Tensor]) -> WordPieces:
    table, words = theirs.get(_TABLE), checkpoint.words
    if table is None or table.dim() != 2:
        raise InputError(f"{checkpoint.where} has no {_TABLE}", "Give the checkpoint of a whole BERT.")
    if words is None:
        raise InputError(f"{checkpoint.where} has no word pieces beside it", "Put BERT's vocab.txt there.")
    if words.size != len(table):
        raise InputError(
            f"{checkpoint.where} has rows for {len(table):,} word pieces, and there are {words.size:,} beside it",
            "Put the vocab.txt there that it was trained with.",
        )
    return words


def _sizes(checkpoint: Checkpoint, theirs: Mapping[str, Tensor]) -> dict[str, int]:
    """The model's sizes, from the tensors; the number of heads is only in config.json."""
    where, settings = checkpoint.where, checkpoint.settings
    for name, built_in in _BUILT_IN.items():
        if settings.get(name, built_in) != built_in:
            raise InputError(f"{where} has {name} {settings[name]!r}, and the model {built_in!r}", "Give a BERT.")
    heads = settings.get("num_attention_heads")
    if type(heads) is not int:
        raise InputError(f"{where} has no config.json with num_attention_heads beside it", "Get that file, too.")
    layers = len({found[1] for name in theirs if (found := _THEIR_LAYER.match(name))})
    if layers % 2 or not layers:
        raise InputError(f"{where} has {layers} layers, which have no halves", "Give a BERT with an even number.")
    shapes = {name: tensor.shape for name, tensor in theirs.items() if tensor.dim() == 2}
    positions = shapes.get("bert.embeddings.position_embeddings.weight", (512,))
    widened = shapes.get(
        "bert.encoder.layer.0.intermediate.dense.weight", (3072,)
    )  # `_check_whole` finds what is not there
    return {
        "hidden_size": theirs[_TABLE].shape[1],
        "heads": heads,
        "feed_forward_size": widened[0],
        "layers": layers // 2,
        "positions": positions[0],
    }
