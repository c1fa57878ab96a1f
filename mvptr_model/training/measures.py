"""What a step measures on each rank, put together over all of them, as the record of `log.py`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mvptr_data.errors import MvptrError
from mvptr_model.batch import Batch
from mvptr_model.model import Outcome
from mvptr_model.training.log import finite
from mvptr_model.training.processes import World


@dataclass(frozen=True, slots=True)
class Counts:
    """What a rank did in a step: pairs and places (of texts, tags and regions) that were there, FLOPs. Sums over ranks are such,
    too."""

    pairs: float
    places: float
    flops: float

    @classmethod
    def of(cls, batches: Sequence[Batch], flops: float) -> Counts:
        pairs = sum(float(batch.weights.sum()) for batch in batches)
        places = sum(
            int(lengths.sum())
            for batch in batches
            for lengths in (batch.text_lengths, batch.tag_lengths, batch.region_counts)
        )
        return cls(pairs, float(places), flops)


@dataclass(slots=True)
class Rates:
    """How fast a run is, over all ranks, since the last line of its log."""

    started: float = field(default_factory=time.perf_counter)
    counts: list[float] = field(default_factory=lambda: [0.0] * 3)
    waited: float = 0.0

    def add(self, counts: Sequence[float], waits: Sequence[float]) -> None:
        """Another step's sums over all ranks, in the order of `Counts`; and how many seconds each rank waited for data: they make
        the step together, so the others waited for the last one."""
        self.counts = [sum(pair) for pair in zip(self.counts, counts, strict=True)]
        self.waited += max(waits)

    def pause(self, seconds: float) -> None:
        """So many seconds were spent on something else: a checkpoint."""
        self.started += seconds

    def record(self, world: World, peak_flops: float | None) -> dict[str, float | None]:
        """The rates, which start again from here. `peak_flops` is one rank's device's."""
        now = time.perf_counter()
        seconds, waited, (pairs, places, flops) = max(now - self.started, 1e-9), self.waited, self.counts
        self.started, self.waited, self.counts = now, 0.0, [0.0] * 3
        return {
            "samples_per_second": pairs / seconds,
            "tokens_per_second": places / seconds,
            "data_wait": waited / seconds,
            "flops_utilisation": flops / (seconds * world.size * peak_flops) if peak_flops and flops else None,
        }


class StepValues:
    """Losses and accuracies of one step, summed over its parts as they come, without waiting for the device."""

    def __init__(self) -> None:
        self._names: list[tuple[str, str]] = []
        self._sum: Tensor | None = None

    def add(self, outcome: Outcome, parts: int, share: float) -> None:
        """One of so many parts of the step; `share` as in `shares`."""
        named = {("losses", name): value for name, value in outcome.losses.items()}
        named |= {("accuracies", name): value for name, value in outcome.accuracies.items()}
        self._names = list(named)
        values = torch.stack([value.detach().float().reshape(()) for value in named.values()]) * share / parts
        self._sum = values if self._sum is None else self._sum + values

    def numbers(self) -> list[float]:
        """On this rank; the means over ranks are the batch's."""
        assert self._sum is not None, "a step has at least one part"
        return [float(value) for value in self._sum.tolist()]

    def record(self, numbers: Sequence[float]) -> dict[str, Any]:
        """`loss`, `losses` and `accuracies` of the batch."""
        found: dict[str, Any] = {"losses": {}, "accuracies": {}}
        for (kind, name), number in zip(self._names, numbers, strict=True):
            found[kind][name] = number
        return {"loss": sum(found["losses"].values()), **found}


def shares(weights: Sequence[float]) -> list[float]:
    """What the parts of a step, with so many pairs each over all ranks, count in its mean: 1 on average, and 1 if all are equal.

    A part is its own pairs' mean, so one with empty slots would count as much as a full one.
    """
    whole = sum(weights)
    return [len(weights) * weight / whole if whole else 1.0 for weight in weights]


def not_finite(
    record: Mapping[str, Any], norm: float, *, overflow_allowed: bool, stage: int, step: int
) -> MvptrError | None:
    """The error where a loss is no number, or the gradient is none and that is not fp16's overflow."""
    bad = [name for name, value in record["losses"].items() if not math.isfinite(value)]
    if bad:
        what = f"the loss {', '.join(bad)} is {record['losses'][bad[0]]}"
    elif not math.isfinite(norm) and not overflow_allowed:
        what = f"the gradient's norm is {norm}"
    else:
        return None
    return MvptrError(f"{what} in step {step} of stage {stage}")


def temperature(logit_scale: Tensor, maximum: float) -> float | None:
    """Eq. 4's tau, of ln(1 / tau)."""
    return finite(float(torch.exp(-logit_scale.double().clamp(max=math.log(maximum)))))
