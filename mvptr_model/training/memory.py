"""Bytes of a rank's memory: what DeepSpeed keeps of every number, and what a forward pass keeps for the backward pass.

Of P numbers in the model N are learned, on W ranks (Rajbhandari et al. 2020; checked against DeepSpeed's engine by the tests).
In half precision ZeRO 0 is done as 1:

| bytes | float32, ZeRO 0 | float32, ZeRO 1 and 2 | half precision |
|---|---|---|---|
| weights | 4 P | 4 P | 2 P |
| gradients, when the optimizer takes them | 4 N | 4 N / W | 2 N / W |
| the optimizer's own weights, AdamW's two moments | 8 N | 12 N / W | 12 N / W |
| during the backward pass: a bucket of B gradients to be reduced | - | 4 B | 2 B |
| and with ZeRO 1 the gradients of other ranks' parts | - | 4 (N - N / W) | 2 (N - N / W) |
| during the optimizer's step: gradients as it wants them | - | 4 N / W | 4 N / W |

Activations are not computed by a formula: the model goes through a few real samples on this machine, and what autograd keeps is
counted and extended to the micro-batch. Kernels of other devices keep a few percent less. Not in it: the device's context and
libraries, about 1 GB on a GPU, and what its allocator leaves unused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mvptr_model.batch import Batch
from mvptr_model.model import Mvptr
from mvptr_model.training.engine import zero_stage
from mvptr_model.training.settings import PretrainSettings

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of one rank. `reducing` and `activations` are there during the backward pass, `stepping` during the optimizer's."""

    weights: int
    gradients: int
    optimizer: int
    reducing: int
    stepping: int
    activations: int

    @property
    def most(self) -> int:
        """The most at any time."""
        return self.weights + self.gradients + self.optimizer + max(self.reducing + self.activations, self.stepping)


def memory_of(settings: PretrainSettings, *, numbers: int, learned: int, world: int, activations: int) -> Memory:
    """For a model of `numbers` P, of which N are `learned`, on `world` ranks W."""
    zero = zero_stage(settings)
    size = 4 if settings.precision.type == "fp32" else 2
    share = math.ceil(learned / world) if zero else learned
    bucket = min(settings.zero.bucket_size, learned) if zero else 0
    return Memory(
        weights=size * numbers,
        gradients=size * share,
        optimizer=(12 if zero else 8) * share,
        reducing=size * (bucket + (learned - share if zero == 1 else 0)),
        stepping=4 * share if zero else 0,
        activations=activations,
    )


def checkpoint_bytes(*, numbers: int, learned: int) -> int:
    """What the ranks together write, about: weights, the optimizer's own and its moments, 4 bytes a number each."""
    return 4 * numbers + 12 * learned


def saved_bytes(model: Mvptr, batch: Batch, *, stage: int) -> int:
    """Bytes that autograd keeps of a forward pass until the backward pass, parameters not counted."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    # What is kept stays alive until the outcome goes, so no address is used twice.
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outcome = model(batch, stage=stage)
    del outcome
    return sum(kept.values())


def activation_bytes(model: Mvptr, batches: Sequence[Batch], pairs: int, *, stage: int) -> int:
    """`saved_bytes` of a micro-batch of `pairs`, from two smaller ones, or from the only one.

    Each further pair is taken to cost as much as those that the second batch has more than the first.
    """
    few, *more = (saved_bytes(model, batch, stage=stage) for batch in batches)
    if not more:
        return round(few * pairs / len(batches[0]))
    each = (more[0] - few) / (len(batches[1]) - len(batches[0]))
    return max(0, round(more[0] + each * (pairs - len(batches[1]))))
