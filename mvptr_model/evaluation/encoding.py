"""The model's encoders, run over a whole data set without learning.

Shape legend: N images, M texts, n rows of a batch, D size of a state, q pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mvptr_model.ablations import ablated
from mvptr_model.batch import Batch
from mvptr_model.model import Mvptr
from mvptr_model.sequences import Sequences


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One modality of a data set, on the CPU: `states` of N images or M texts before they meet the other, and of each the
    L2-normalized projection of its `[CLS]`, `embeddings` float32 [N or M, D], which eq. 4 compares."""

    states: Sequences
    embeddings: Tensor


@contextmanager
def measuring(model: Mvptr) -> Iterator[torch.device]:
    """Without dropout and gradients; the model learns on afterwards as before. Gives the model's device."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield next(model.parameters()).device
    finally:
        model.train(was_training)


def encode_texts(model: Mvptr, batches: Iterable[Batch]) -> Encoded:
    """The texts of packed `batches`, words and phrases."""
    parts, embeddings = [], []
    with measuring(model) as device:
        for batch in batches:
            batch = ablated(batch.placed(device), model.configuration)
            text = model.bert.text(batch.text_ids, batch.text_lengths)
            embeddings.append(_embedded(model.bert.txt_proj(text.first)))
            parts.append(text.to("cpu"))
    return Encoded(Sequences.concatenated(parts), torch.cat(embeddings))


def encode_images(model: Mvptr, batches: Iterable[Batch]) -> Encoded:
    """The images of packed `batches`, as the multi-modal encoder takes them: regions, with `merged_attention` tags before."""
    parts, embeddings = [], []
    with measuring(model) as device:
        for batch in batches:
            tags, regions = _image(model, ablated(batch.placed(device), model.configuration))
            embeddings.append(_embedded(model.bert.vis_proj(tags.first)))
            parts.append((tags.then(regions) if model.configuration.merged_attention else regions).to("cpu"))
    return Encoded(Sequences.concatenated(parts), torch.cat(embeddings))


def encode_pairs(model: Mvptr, batch: Batch, layer: int) -> tuple[Sequences, Sequences]:
    """Texts and regions of the pairs of a packed batch, `placed` where the model is, at the output of a layer of the
    multi-modal encoder, from 0."""
    batch = ablated(batch, model.configuration)
    text = model.bert.text(batch.text_ids, batch.text_lengths)
    tags, regions = _image(model, batch)
    image = tags.then(regions) if model.configuration.merged_attention else regions
    joint = model.bert.mul_encoder.outputs(text.then(image), {layer})[layer]
    text, image = joint.split(batch.text_lengths)
    return text, image.split(batch.tag_lengths)[1] if model.configuration.merged_attention else image


def match_log_odds(model: Mvptr, texts: Sequences, images: Sequences) -> Tensor:
    """float32 [q]: ln of how much likelier than not each text and image match, by ITM's head.

    They order pairs as the probability does, without its rounding to 1 beyond 17.
    """
    joint, last = texts.then(images), model.configuration.joint_layers - 1
    nowhere_else = torch.zeros(len(joint.states), dtype=torch.bool)
    first = model.bert.mul_encoder.outputs(joint, {last}, nowhere_else)[last].first
    logits = model.cls.seq_relationship(model.bert.pooler(first)).float()
    return logits[:, 1] - logits[:, 0]


def _image(model: Mvptr, batch: Batch) -> tuple[Sequences, Sequences]:
    """Tags and regions of a packed batch as the visual encoder leaves them."""
    return model.bert.image(
        model.bert.tags(batch.tag_ids, batch.tag_lengths),
        model.bert.regions(batch.features, batch.geometry, batch.region_counts),
    )


def _embedded(projected: Tensor) -> Tensor:
    return F.normalize(projected.float(), dim=-1).cpu()
