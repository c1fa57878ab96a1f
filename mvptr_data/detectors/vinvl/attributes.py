"""Which attributes a region has (reference page, "Attributes").

Shape shorthand: K regions, D = 2048, T attributes with column 0 for none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvptr_data.detectors.vinvl.architecture import Architecture

#: Probabilities up to this count as none, and no region has more attributes than that (ATTRIBUTE_HEAD.POSTPROCESS).
LEAST_PROBABILITY, MOST_ATTRIBUTES = 0.05, 16


class AttributeHead(nn.Module):
    """The region's vector beside its label's embedding, then two layers."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.cls_embedding = nn.Embedding(architecture.classes + 1, architecture.label_width)
        self.fc_attr = nn.Linear(architecture.res5.outputs + architecture.label_width, architecture.attribute_width)
        self.attr_score = nn.Linear(architecture.attribute_width, architecture.attributes + 1)

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Vectors [K, D] and their labels [K], from 1 -> float32 logits [K, T]."""
        joined = torch.cat([vectors.to(self.fc_attr.weight.dtype), self.cls_embedding(labels)], dim=1)
        return self.attr_score(F.relu_(self.fc_attr(joined))).float()


def rank_attributes(logits: Tensor) -> tuple[Tensor, Tensor]:
    """[K, T] -> each region's most probable attributes, int64 [K, 16] from 1, and their probabilities [K, 16], descending.

    A probability of 0 stands for no attribute.
    """
    probabilities = logits.softmax(dim=1)
    probabilities[:, 0] = 0
    probabilities = torch.where(probabilities > LEAST_PROBABILITY, probabilities, 0)
    best, indices = probabilities.topk(min(MOST_ATTRIBUTES, logits.shape[1]), dim=1)
    return indices, best


def worth_naming(indices: Tensor, probabilities: Tensor) -> tuple[list[list[int]], list[list[float]]]:
    """What `rank_attributes` gives, on the host -> each region's attributes, as many as it has, and their probabilities."""
    counts = (probabilities > 0).sum(dim=1).tolist()
    return (
        [row[:count] for row, count in zip(indices.tolist(), counts, strict=True)],
        [row[:count] for row, count in zip(probabilities.tolist(), counts, strict=True)],
    )
