"""Training of the compact detector: a function of the seed, the number of steps and the machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mvptr_data.detectors.compact.losses import batch_losses
from mvptr_data.detectors.compact.model import CompactModel, initial_model
from mvptr_data.detectors.compact.pictures import WORLD_NAMES, training_batches
from mvptr_data.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """What a training run is made of; the defaults made the bundled weights."""

    #: Batches. The learning rate falls to zero over all of them, so a shorter training is not the beginning of a longer one.
    steps: int = 2200
    #: Chooses the pictures, the initial parameters and what is sampled.
    seed: int = 20211
    #: Pictures a batch; 8 learn faster than 16 in the same time.
    batch_size: int = 8
    #: Peak learning rate and decoupled weight decay of AdamW.
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    #: Steps over which the learning rate rises from zero.
    warm_up: int = 100
    #: Largest norm of a step's gradient.
    clip_norm: float = 10.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}", "Train for at least one step of one picture.")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}", "Choose a seed of 0 or above.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The mean losses since the last report."""

    step: int
    losses: dict[str, float]


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Rate of step number `step`: a linear rise, then a half cosine that ends at zero."""
    risen = min(1.0, (step + 1) / settings.warm_up) if settings.warm_up else 1.0
    return settings.learning_rate * risen * 0.5 * (1.0 + math.cos(math.pi * step / settings.steps))


def train(settings: TrainingSettings, report: Callable[[Progress], None], report_every: int = 50) -> CompactModel:
    """A network trained on pictures that are drawn as it goes, in bf16 autocast; the threads are torch's own number."""
    generator = torch.Generator().manual_seed(settings.seed)
    model = initial_model(WORLD_NAMES, generator).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    recent: list[dict[str, float]] = []
    for step, (pixels, truths) in enumerate(training_batches(settings.seed, settings.steps, settings.batch_size)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = batch_losses(model, pixels, truths, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.total().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        recent.append(loss.parts())
        if (step + 1) % report_every == 0 or step + 1 == settings.steps:
            means = {part: sum(losses[part] for losses in recent) / len(recent) for part in recent[0]}
            report(Progress(step=step + 1, losses=means))
            recent.clear()
    return model.eval()
