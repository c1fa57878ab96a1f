"""The authors' checkpoints, in and out (Li et al. 2022, released code).

    saved, report = import_official("pretrained/base", PhraseVocabulary.load("id2phrase.json"))
    report = export_official(saved, "for-their-code")

| theirs | ours |
|---|---|
| `bert.txt_proj`, `bert.vis_proj` [D, D], used as x @ W | `bert.txt_proj.weight`, `bert.vis_proj.weight`, transposed |
| `cls.seq_relationship.*`, row 0 = match, row 1 = no match | row 1 = match, row 0 = no match |
| `cls.predictions.decoder.weight`, `half_mlm.decoder.weight` | the same: decoders of their own (`tied_decoders=False`) |
| row i of the embedding table, for the phrase of id i | row V + r, for the phrase of rank r and `official_id` i |
| rows of the table that no phrase has (a hole in the ids) | rows after the last phrase, in their order |
| `bert.LayerNorm.*`, where they normalize regions | the same (`region_layernorm`) |
| - | `phrase_mcr.*`: fresh, and left out on the way back |
| `qa_head.*` and the like | left out |

All else has the same name and shape. A phrase of theirs that is a word (id below V) has that word's row; ours gets a copy of it,
which is left out on the way back. A vocabulary without official ids has the ids V + r.

Shape legend: V word pieces, P phrases, N rows of their table, D size of a state.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mvptr_data.errors import InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store, output_errors
from mvptr_model.configuration import ModelConfiguration
from mvptr_model.initialisation.checkpoint import SETTINGS, Checkpoint, read_checkpoint
from mvptr_model.initialisation.weights import NO_PHRASES, Report, fill, fresh_model, shortened
from mvptr_model.inputs import InputSettings
from mvptr_model.saved_model import WORDS, SavedModel, piece_lines
from mvptr_model.word_pieces import WordPieces

#: Files of an export, by the names that the authors' code looks for.
OFFICIAL_WEIGHTS, OFFICIAL_PHRASES = "pytorch_model.bin", "id2phrase.json"
#: BERT's, where config.json does not say how many heads share a state.
_HEAD_SIZE = 64
_TABLE = "bert.embeddings.word_embeddings.weight"
_PROJECTIONS = ("bert.txt_proj", "bert.vis_proj")
_ITM = ("cls.seq_relationship.weight", "cls.seq_relationship.bias")
#: What a checkpoint of a downstream task may lack.
_HEADS = ("cls.", "half_mlm.", "logit_scale", "phrase_mcr.")
_LAYER = re.compile(r"bert\.(txt|vis|mul)_encoder\.layer\.(\d+)\.")


def import_official(
    source: str,
    phrases: PhraseVocabulary | None = None,
    *,
    words: WordPieces | None = None,
    inputs: InputSettings | None = None,
    heads: int | None = None,
    seed: int = 0,
) -> tuple[SavedModel, Report]:
    """A model of preset "official" with the authors' weights; `source` as for `read_checkpoint`.

    `words` and `heads` are for what stands without vocab.txt and config.json. Without `phrases` the model knows none, and their
    rows are kept. `seed` decides what is fresh. Raises `InputError` (no checkpoint of this kind, ids that it has no row for),
    `DamagedFileError`.
    """
    checkpoint = read_checkpoint(source)
    where, theirs = checkpoint.where, checkpoint.tensors
    words = words or checkpoint.words
    if words is None:
        raise InputError(f"{where} has no word pieces beside it", "Give BERT's vocab.txt (--words).")
    phrases = phrases or NO_PHRASES
    table = _matrix(theirs, _TABLE, where)
    order = _order(phrases, words.size, len(table), where)
    configuration = ModelConfiguration.preset("official", **_sizes(checkpoint, words, len(order) - words.size, heads))
    model = fresh_model(configuration, seed)
    values, notes = _ours(theirs, words.size, where)
    own = model.state_dict()
    values[_TABLE] = table[order]
    unexpected = sorted(values.keys() - own.keys())
    missing = fill(model, {name: value for name, value in values.items() if name in own}, where)
    if lacking := [name for name in missing if not name.startswith(_HEADS)]:
        raise InputError(f"{where} has no {shortened(lacking)}", "Give a checkpoint of the authors' pre-training.")
    report = Report(source=where, missing=missing, unexpected=tuple(unexpected), notes=tuple(notes))
    saved = SavedModel(model, words, phrases, inputs or InputSettings(preset="official"))
    return saved, report


def official_tensors(saved: SavedModel) -> tuple[dict[str, Tensor], Report]:
    """The tensors by the authors' names, and what has no place among them. Raises `InputError` for a merged model."""
    configuration, own = saved.model.configuration, saved.model.state_dict()
    if configuration.merged_attention:
        raise InputError(
            "a model with merged_attention has no encoder of one modality", "The authors' code needs them."
        )
    found = {name: tensor.detach().cpu() for name, tensor in own.items() if not name.startswith("phrase_mcr.")}
    for name in _PROJECTIONS:
        found[name] = found.pop(f"{name}.weight").T.contiguous()
    for name in _ITM:
        found[name] = found[name].flip(0)
    words = found[_TABLE][: configuration.word_rows]
    for head in ("cls.predictions", "half_mlm"):
        found.setdefault(f"{head}.decoder.weight", words.clone())
    found[_TABLE], notes = _their_table(saved, found[_TABLE])
    left_out = tuple(name for name in own if name.startswith("phrase_mcr."))
    return found, Report(source="the model", missing=(), unexpected=left_out, notes=tuple(notes))


def export_official(saved: SavedModel, root: str) -> Report:
    """Write weights, config.json, vocab.txt and id2phrase.json as the authors' code reads them into a folder or URL.

    The same model gives the same bytes. Raises `InputError`, `OutputError`.
    """
    tensors, report = official_tensors(saved)
    store, file = Store.at(root), io.BytesIO()
    torch.save(tensors, file)
    with output_errors(store):
        store.write(WORDS, piece_lines(saved.words))
        saved.phrases.save_official(store, OFFICIAL_PHRASES)
        store.write_json(SETTINGS, _their_settings(saved.model.configuration, len(tensors[_TABLE])))
        store.write(OFFICIAL_WEIGHTS, file.getvalue())
    return report


def official_ids(phrases: PhraseVocabulary, words: int) -> list[int]:
    """The row of each phrase in the authors' table. Raises `InputError` where two phrases have one."""
    ids = [words + rank if number is None else number for rank, number in enumerate(phrases.official_ids)]
    if len(set(ids)) != len(ids):
        raise InputError("two phrases of the vocabulary have one official id", "Give the authors' id2phrase.json.")
    return ids


def _order(phrases: PhraseVocabulary, words: int, rows: int, where: str) -> Tensor:
    """int64 [V + P + unused]: which row of theirs each of ours is: words, phrases by rank, rows that nothing has."""
    if words > rows:
        raise InputError(f"{where} has {rows:,} rows, and there are {words:,} word pieces", "Give its own vocab.txt.")
    ids = official_ids(phrases, words)
    if ids and not 0 <= min(ids) <= max(ids) < rows:
        raise InputError(
            f"{where} has {rows:,} rows, and the phrases' ids go from {min(ids):,} to {max(ids):,}",
            "Give the id2phrase.json that it was trained with.",
        )
    unused = sorted(set(range(words, rows)).difference(ids))
    return torch.tensor([*range(words), *ids, *unused])


def _their_table(saved: SavedModel, ours: Tensor) -> tuple[Tensor, list[str]]:
    """[N, D], the rows in the authors' order; and what is to be said of it."""
    words, count = saved.words.size, len(saved.phrases)
    ids = torch.tensor(official_ids(saved.phrases, words), dtype=torch.long)
    places = ids >= words
    spare = ours[words + count :]
    rows = max([words + int(places.sum()) + len(spare), *(ids + 1).tolist()])
    if rows > 2 * len(ours):  # theirs are one in a hundred
        raise InputError(
            f"the phrases' ids go to {rows - 1:,}, and most rows before that would be no phrase's",
            "Give the authors' id2phrase.json.",
        )
    table = ours.new_zeros(rows, ours.shape[1])
    table[:words] = ours[:words]
    table[ids[places]] = ours[words : words + count][places]
    free = torch.ones(rows, dtype=torch.bool)
    free[:words] = False
    free[ids[places]] = False
    holes = free.nonzero()[:, 0]
    table[holes[: len(spare)]] = spare
    notes = []
    if shared := int((~places).sum()):
        notes.append(f"{shared:,} phrases have a word's row there, and what they have of their own is left out")
    if len(holes) > len(spare):
        notes.append(f"{len(holes) - len(spare):,} rows that no phrase has are zeros")
    return table, notes


def _ours(theirs: Mapping[str, Tensor], words: int, where: str) -> tuple[dict[str, Tensor], list[str]]:
    """Their tensors but for the table, by our names and in our form; and what is to be said of it."""
    found, notes = {name: tensor for name, tensor in theirs.items() if name != _TABLE}, []
    for name in _PROJECTIONS:
        if name in found:
            found[f"{name}.weight"] = _matrix(found, name, where).T
            del found[name]
    for name in _ITM:
        if name in found and found[name].dim():
            if len(found[name]) == 3:
                found[name] = found[name][:2]
                notes.append(f"{name} has 3 rows: the third, which no pair was, is left out")
            found[name] = found[name].flip(0)
    for head in ("cls.predictions", "half_mlm"):
        if f"{head}.transform.dense.weight" in found and f"{head}.decoder.weight" not in found:
            found[f"{head}.decoder.weight"] = theirs[_TABLE][:words]
            notes.append(f"{head} has no decoder of its own: it gets the words' rows")
    return found, notes


def _sizes(checkpoint: Checkpoint, words: WordPieces, phrase_rows: int, heads: int | None) -> dict[str, Any]:
    """Fields of the configuration, by the tensors' shapes."""
    theirs, where = checkpoint.tensors, checkpoint.where
    stacks: dict[str, set[str]] = {"txt": set(), "vis": set(), "mul": set()}
    for name in theirs:
        if found := _LAYER.match(name):
            stacks[found[1]].add(found[2])
    depths = {name: len(numbers) for name, numbers in stacks.items()}
    if len(set(depths.values())) != 1 or not depths["txt"]:
        said = ", ".join(f"{count} in {name}_encoder" for name, count in depths.items())
        raise InputError(f"{where} has {said} layers", "Give a checkpoint of the authors' pre-training.")
    size = _matrix(theirs, _TABLE, where).shape[1]
    if heads is None:
        stored = checkpoint.settings.get("num_attention_heads")
        heads = stored if type(stored) is int else max(1, size // _HEAD_SIZE)
    return {
        "word_rows": words.size,
        "phrase_rows": phrase_rows,
        "hidden_size": size,
        "heads": heads,
        "feed_forward_size": _matrix(theirs, "bert.txt_encoder.layer.0.intermediate.dense.weight", where).shape[0],
        "layers": depths["txt"],
        "wpg_layer": depths["txt"],
        "positions": _matrix(theirs, "bert.embeddings.position_embeddings.weight", where).shape[0],
        "region_size": _matrix(theirs, "bert.img_embedding.weight", where).shape[1],
        "region_layernorm": "bert.LayerNorm.weight" in theirs,
    }


def _matrix(tensors: Mapping[str, Tensor], name: str, where: str) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None or tensor.dim() != 2 or 0 in tensor.shape:
        found = "no such tensor" if tensor is None else f"{list(tensor.shape)}"
        raise InputError(
            f"{where} has {found} as {name}, not a matrix", "Give a checkpoint of the authors' pre-training."
        )
    return tensor


def _their_settings(configuration: ModelConfiguration, rows: int) -> dict[str, Any]:
    """config.json by the names of the authors' code, whose layers are counted over two encoders in a row."""
    return {
        "vocab_size": rows,
        "only_word_size": configuration.word_rows,
        "hidden_size": configuration.hidden_size,
        "num_hidden_layers": 2 * configuration.layers,
        "num_attention_heads": configuration.heads,
        "intermediate_size": configuration.feed_forward_size,
        "hidden_act": "gelu",
        "hidden_dropout_prob": configuration.dropout,
        "attention_probs_dropout_prob": configuration.attention_dropout,
        "max_position_embeddings": configuration.positions,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "img_layer_norm_eps": 1e-12,
        "img_feature_dim": configuration.region_size,
        "img_feature_type": "faster_r-cnn",
        "use_img_layernorm": int(configuration.region_layernorm),
        "num_contrast_classes": 2,
    }
