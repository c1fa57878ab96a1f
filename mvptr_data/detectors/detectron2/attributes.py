"""Bottom-up attention's attribute head, from either port of it to detectron2.

Shape shorthand: R regions, D their feature's width, C classes without the background, A attributes.

Anderson et al. (2018), section 3.1: an embedding of the region's class joins its feature; a hidden layer and a softmax
over attributes follow. While training the class is the true one; here it is the likeliest, the background included.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mvptr_data.errors import DamagedFileError

#: Per port: (prefix of the embedding, of the hidden layer, of the output; is the last output "no attribute"?).
#: MILVLG/bottom-up-attention.pytorch (bua/d2), airsplay/py-bottom-up-attention (fast_rcnn.py).
PORTS = (
    (
        "roi_heads.attribute_predictor.obj_embed",
        "roi_heads.attribute_predictor.fc.0",
        "roi_heads.attribute_predictor.attr_score",
        False,
    ),
    (
        "roi_heads.box_predictor.cls_embedding",
        "roi_heads.box_predictor.fc_attr",
        "roi_heads.box_predictor.attr_score",
        True,
    ),
)


class AttributeHead(nn.Module):
    """Features and classes to probabilities of attributes."""

    def __init__(
        self, embedding: Tensor, hidden: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor], *, has_none: bool
    ) -> None:
        """Embedding [C + 1, E]; weights and biases of the layers, [H, D + E] and [A, H], or [A + 1, H] with `has_none`."""
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(embedding)
        self.hidden, self.output = _linear(*hidden), _linear(*output)
        self.has_none = has_none

    @property
    def attributes(self) -> int:
        return self.output.out_features - self.has_none

    def forward(self, vectors: Tensor, classes: Tensor) -> Tensor:
        """[R, D], int64 [R] from 0 (C: background) -> float32 [R, A]; as in both ports, "no attribute" takes no share."""
        hidden = torch.relu(self.hidden(torch.cat([vectors, self.embedding(classes)], dim=1)))
        logits: Tensor = self.output(hidden).float()
        return logits[:, : self.attributes].softmax(dim=1)


def take_attribute_head(tensors: dict[str, Tensor], *, features: int, classes: int) -> AttributeHead | None:
    """The head in `tensors`, from which it is taken out; None where there is none.

    Raises `DamagedFileError` where it is not whole or its shapes do not fit `features` (D) and `classes` (C).
    """
    for embedding, hidden, output, has_none in PORTS:
        names = [
            f"{embedding}.weight",
            *(f"{layer}.{part}" for layer in (hidden, output) for part in ("weight", "bias")),
        ]
        found = [name for name in names if name in tensors]
        if not found:
            continue
        if len(found) < len(names):
            lacking = next(name for name in names if name not in tensors)
            raise DamagedFileError(f"the weights have an attribute head, but no {lacking!r}", "Get the file again.")
        parts = {name: tensors.pop(name).float() for name in names}
        _check(parts, names, features, classes)
        first, second, third, fourth, fifth = (parts[name] for name in names)
        return AttributeHead(first, (second, third), (fourth, fifth), has_none=has_none)
    return None


def _check(parts: Mapping[str, Tensor], names: list[str], features: int, classes: int) -> None:
    embedding, hidden, _, output, _ = (parts[name] for name in names)
    width = embedding.shape[1] if embedding.ndim == 2 else 0
    expected = (
        (classes + 1, width),
        (hidden.shape[0], features + width),
        (hidden.shape[0],),
        (output.shape[0], hidden.shape[0]),
        (output.shape[0],),
    )
    for name, shape in zip(names, expected, strict=True):
        if tuple(parts[name].shape) != shape:
            raise DamagedFileError(
                f"{name!r} is {tuple(parts[name].shape)} in the weights, {shape} would fit the config",
                "Give both of one model.",
            )


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
