"""Checkpoints of the authors' form, made name by name, at small width (`reference/model.md` 7)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvptr_data.phrases import PhraseVocabulary
from mvptr_model.initialisation.official import import_official
from mvptr_model.inputs import InputSettings
from mvptr_model.saved_model import SavedModel
from mvptr_model.word_pieces import WordPieces

#: Sizes: words, rows of the table, states, widened states, positions, region features.
WORDS, ROWS, SIZE, WIDE, PLACES, REGION = 40, 52, 12, 20, 16, 10
PIECES = WordPieces(["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *(f"w{number}" for number in range(WORDS - 5))])
INPUTS = InputSettings(max_words=10, max_phrases=4, max_tags=9, preset="official")
#: As in id2phrase.json: words that are phrases (7, 31), phrases with rows of their own, a hole (44, 45) and an end (50, 51).
IDS = [7, 31, 40, 41, 42, 43, 46, 47, 48, 49]
TABLE = "bert.embeddings.word_embeddings.weight"
ANSWERS = ("qa_head.weight", "qa_head.bias")

#: The configuration of a model of that size.
SIZES = {"hidden_size": SIZE, "heads": 3, "feed_forward_size": WIDE, "positions": PLACES, "region_size": REGION}


def phrases(folder: Path, ids: list[int] = IDS) -> PhraseVocabulary:
    entries = {str(number): [f"w{number % 30}", f"w{number // 30}"] for number in ids}
    (folder / "id2phrase.json").write_text(json.dumps(entries))
    return PhraseVocabulary.load(str(folder / "id2phrase.json"))


def checkpoint(*, region_layernorm: bool = True, itm_rows: int = 2, rows: int = ROWS) -> dict[str, Tensor]:
    """What the authors' code saves after pre-training: 318 tensors, 316 without LayerNorm of regions."""
    shapes: dict[str, tuple[int, ...]] = {
        TABLE: (rows, SIZE),
        "bert.embeddings.position_embeddings.weight": (PLACES, SIZE),
        "bert.embeddings.token_type_embeddings.weight": (2, SIZE),
        **norm("bert.embeddings.LayerNorm", SIZE),
        **linear("bert.img_embedding", SIZE, REGION),
        **linear("bert.pooler.dense", SIZE, SIZE),
        "bert.txt_proj": (SIZE, SIZE),
        "bert.vis_proj": (SIZE, SIZE),
        "logit_scale": (),
        **linear("cls.seq_relationship", itm_rows, SIZE),
        **linear("qa_head", 7, SIZE),
    }
    if region_layernorm:
        shapes |= norm("bert.LayerNorm", SIZE)
    for head in ("cls.predictions", "half_mlm"):
        shapes |= linear(f"{head}.transform.dense", SIZE, SIZE) | norm(f"{head}.transform.LayerNorm", SIZE)
        shapes |= {f"{head}.decoder.weight": (WORDS, SIZE), f"{head}.bias": (WORDS,)}
    for stack in ("txt", "vis", "mul"):
        for layer in range(6):
            name = f"bert.{stack}_encoder.layer.{layer}"
            for part in ("query", "key", "value"):
                shapes |= linear(f"{name}.attention.self.{part}", SIZE, SIZE)
            shapes |= linear(f"{name}.attention.output.dense", SIZE, SIZE) | norm(
                f"{name}.attention.output.LayerNorm", SIZE
            )
            shapes |= linear(f"{name}.intermediate.dense", WIDE, SIZE) | linear(f"{name}.output.dense", SIZE, WIDE)
            shapes |= norm(f"{name}.output.LayerNorm", SIZE)
    generator = torch.Generator().manual_seed(8)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def write(tensors: dict[str, Tensor], folder: Path) -> str:
    """A folder as the authors' code leaves it."""
    folder.mkdir()
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": 3, "num_hidden_layers": 12}))
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES.pieces))
    return str(folder)


def imported(source: str, tmp_path: Path, **options: Any) -> SavedModel:
    return import_official(source, phrases(tmp_path), inputs=INPUTS, **options)[0]
