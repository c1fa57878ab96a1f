"""Masked language modelling (MVPTR 3.3.4).

Shape legend: m masked words of the batch, V word pieces.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mvptr_model.losses.ranks import Loss, mean, widened


def masked_words(logits: Tensor, labels: Tensor) -> Loss:
    """Eq. 9: the mean cross entropy of the batch's masked words.

    `logits` float [m, V] at the masked places, from the joint encoding of the matched pairs; `labels` int64 [m].
    """
    right = (logits.detach().argmax(dim=1) == labels).float()
    return Loss(mean(F.cross_entropy(widened(logits), labels, reduction="none")), mean(right))
