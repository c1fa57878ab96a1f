"""Masked words recovered from text and image (MVPTR 3.3.4).

Shape legend: m masked words, V word pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mvptr_model.ablations import ablated
from mvptr_model.evaluation.encoding import encode_pairs, measuring
from mvptr_model.evaluation.held_out import HeldOut
from mvptr_model.masking import IGNORED
from mvptr_model.model import Mvptr
from mvptr_model.sequences import taken


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredWords:
    """`accuracy`: the share of masked `words` whose best-scored word piece is the right one. `chance`: the share that one and
    the same answer gets right, the most frequent among them."""

    words: int
    accuracy: float
    chance: float


def recover_words(model: Mvptr, data: HeldOut, *, batch: int = 256) -> RecoveredWords:
    """Masked language modelling on `data`, which has to mask. Accuracies are 0 where nothing is masked."""
    last = model.configuration.joint_layers - 1
    rows = model.bert.embeddings.word_embeddings.weight[: model.configuration.word_rows]
    right, labels = [], []
    with measuring(model) as device:
        for part in data.text_batches(batch):
            words = ablated(part, model.configuration).word_labels
            masked = (words != IGNORED).nonzero()[:, 0]
            text, _ = encode_pairs(model, part.placed(device), last)
            best = model.cls.predictions(taken(text.states, masked), rows).argmax(dim=1)
            right.append(best.cpu() == words[masked])
            labels.append(words[masked])
    found, of = torch.cat(right), torch.cat(labels)
    if not len(of):
        return RecoveredWords(words=0, accuracy=0.0, chance=0.0)
    most = int(torch.bincount(of).max())
    return RecoveredWords(words=len(of), accuracy=found.double().mean().item(), chance=most / len(of))
