"""One stage of a run: the loop over optimizer steps.

1. A rank's parts of the next global batch come from the stream.
2. Each goes forward and backward; the last makes the optimizer step.
3. All ranks add up what they measured, and agree whether to save and whether to stop.

Everything drawn is a function of (seed, stage, step, rank): order, masks, negatives, and dropout, for which torch's generator is
seeded before each forward pass. So a checkpoint holds no generator's state, and a resumed run repeats the curve.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import astuple
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from mvptr_data.errors import ConfigurationMismatchError, MvptrError
from mvptr_model.batch import Batch
from mvptr_model.flops import batch_flops, peak_flops
from mvptr_model.inputs import Collator
from mvptr_model.saved_model import SavedModel, check_vocabulary
from mvptr_model.stream import keyed
from mvptr_model.stream.batches import StreamSpec
from mvptr_model.stream.loader import StreamLoader
from mvptr_model.training import engine as engines
from mvptr_model.training.checkpoint_engine import load_checkpoint, needs_universal, save_checkpoint
from mvptr_model.training.checkpoints import Checkpoint, Place, way_back
from mvptr_model.training.learned import learned_names
from mvptr_model.training.log import Listener, RunLog, finite
from mvptr_model.training.measures import Counts, Rates, StepValues, not_finite, shares, temperature
from mvptr_model.training.processes import StoppedError, StopRequest, World
from mvptr_model.training.schedule import learning_rate
from mvptr_model.training.settings import PretrainSettings, StageSettings

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


class StageRun:
    """A stage, from its start or a checkpoint to its end. All ranks make one and call it together."""

    def __init__(
        self,
        settings: PretrainSettings,
        stage: StageSettings,
        start: SavedModel,
        checkpoint: Checkpoint | None,
        world: World,
        listener: Listener,
    ) -> None:
        """`start`: the model that the stage begins with; the stage takes it over."""
        self._settings, self._stage, self._world, self._listener = settings, stage, world, listener
        self._output = Path(settings.output)
        self._seed = settings.stage_seed(stage.stage)
        self._parts = settings.batches.accumulation
        with world.together():
            self._loader = self._open_stream(start)
        world.agree(
            self._loader.order.digest,
            lambda first: ConfigurationMismatchError(
                f"rank {world.rank} reads other data than the first rank (digest of their order "
                f"{self._loader.order.digest[:12]}, not {first[:12]})",
                "Give all ranks the same data sets.",
            ),
        )
        self._batches = self._loader.order.batches
        self.steps = stage.length(self._batches)
        names = learned_names(start.model.configuration, stage.stage, dict(start.model.named_parameters()))
        for name, parameter in start.model.named_parameters():
            parameter.requires_grad_(name in names)
        universal = checkpoint is not None and needs_universal(checkpoint.place, world)
        self._engine: DeepSpeedEngine = engines.open_engine(start.model, settings, world, universal=universal)
        self._engine.train()
        self.done = 0
        if checkpoint is not None:
            load_checkpoint(self._engine, checkpoint, world)
            self._loader.load_state_dict(checkpoint.place.stream)
            self.done = checkpoint.place.step

    def run(self, request: StopRequest) -> dict[str, Tensor]:
        """Make the remaining steps. Returns the learned float32 weights, on the first rank alone.

        Raises `StoppedError` after a checkpoint where a signal asked for it, and `MvptrError` for what ended the run.
        """
        log = None
        with ExitStack() as ending:  # all of which is done, whatever fails
            ending.callback(self._engine.destroy)
            if self._world.leads:
                log = RunLog(self._output, self._stage.stage, self.done, tensorboard=self._settings.log.tensorboard)
                ending.callback(log.close)
                self._listener.begin(self._stage.stage, self.done, self.steps)
                ending.callback(self._listener.end)
            batches = ending.enter_context(closing(self._global_batches()))
            rates, saved = Rates(), time.monotonic()
            while self.done < self.steps:
                record, due, stop = self._step(batches, rates, self._due(saved), request)
                self.done += 1
                if log is not None and record:
                    log.write(record)
                    self._listener.step(record)
                if self.done < self.steps and (due or stop):
                    began = time.perf_counter()
                    folder = self._save(log)
                    saved = time.monotonic()
                    rates.pause(time.perf_counter() - began)
                    if stop:
                        raise stopped(stop, f"saved {folder}")
            self._sync(log)
            return engines.full_weights(self._engine, kept=self._world.leads)

    def _open_stream(self, start: SavedModel) -> StreamLoader:
        batches = self._settings.batches
        for root in self._settings.data:  # published anew with other phrases, each would be read as another one
            check_vocabulary(start.phrases, root)
        collate = Collator(start.words, start.phrases, start.inputs, self._settings.stage_masking(self._stage.stage))
        spec = StreamSpec(
            roots=self._settings.data,
            order=batches.order(self._seed),
            collate=collate,
            rank=self._world.rank,
            world=self._world.size,
            accumulate=self._parts,
            on_fault="skip" if batches.max_faults else "raise",
        )
        return StreamLoader(
            spec,
            workers=batches.workers,
            prefetch_bytes=batches.prefetch_bytes,
            max_faults=batches.max_faults,
            pin_memory=self._world.device.type == "cuda",
        )

    def _global_batches(self) -> Generator[list[Batch]]:
        """This rank's parts of one global batch after another, epoch after epoch."""
        while True:
            with closing(cast(Generator[Batch], iter(self._loader))) as epoch:
                for first in epoch:
                    yield [first, *(next(epoch) for _ in range(self._parts - 1))]

    def _step(
        self, batches: Iterator[list[Batch]], rates: Rates, due: bool, request: StopRequest
    ) -> tuple[dict[str, Any], bool, int]:
        """One optimizer step. Returns its record (empty where the log leaves it out), whether to save, and the number of the
        signal that asked to stop (0 for none): the same on all ranks."""
        began = time.perf_counter()
        with self._world.together():
            parts = next(batches)
            waits = [0.0] * self._world.size
            waits[self._world.rank] = time.perf_counter() - began
        rate = learning_rate(self._stage, self.done, self.steps)
        engines.set_learning_rate(self._engine, rate)
        scale = engines.loss_scale(self._engine)
        values = StepValues()
        norm, overflow = 0.0, False
        for part, (batch, share) in enumerate(zip(parts, self._shares(parts), strict=True)):
            norm, overflow = self._pass(values, batch, self.done * self._parts + part, share)
        own = values.numbers()
        counts = astuple(Counts.of(parts, self._flops(parts)))
        asked = (len(self._loader.faults), due and self._world.leads, request.number > 0)
        summed = iter(self._world.total([*own, *counts, *waits, *asked]))
        found = values.record([number / self._world.size for number in islice(summed, len(own))])
        self._check(found, norm, overflow)
        rates.add(list(islice(summed, len(counts))), list(islice(summed, len(waits))))
        faults, save, stop = summed
        number = self._world.most(request.number) if stop else 0
        if (self.done + 1) % self._settings.log.steps and self.done + 1 < self.steps:
            return {}, save > 0, number
        record = {
            "stage": self._stage.stage,
            "step": self.done + 1,
            "epoch": self.done // self._batches,
            "samples": (self.done + 1) * self._settings.batches.global_batch,
            **found,
            "learning_rate": rate,
            "temperature": self._temperature(),
            "gradient_norm": finite(norm),
            "loss_scale": scale,
            "overflow": overflow,
            "samples_left_out": int(faults),
            **rates.record(self._world, self._settings.log.peak_flops or peak_flops(self._world.device)),
        }
        return record, save > 0, number

    def _check(self, found: dict[str, Any], norm: float, overflow: bool) -> None:
        """Raises `MvptrError` on all ranks where a number is none; only fp16 may overflow."""
        allowed = overflow and self._engine.fp16_enabled()
        fault = not_finite(found, norm, overflow_allowed=allowed, stage=self._stage.stage, step=self.done + 1)
        if fault is not None:
            fault.mend = way_back(self._output)
            with self._world.together():  # all know; one says it
                raise fault

    def _shares(self, parts: list[Batch]) -> list[float]:
        """As `shares`. The ranks are asked only where there are several parts, for one is the whole."""
        weights = [float(batch.weights.sum()) for batch in parts]
        return shares(self._world.total(weights)) if len(parts) > 1 else [1.0]

    def _pass(self, values: StepValues, batch: Batch, forward: int, share: float) -> tuple[float, bool]:
        """Forward and backward of one part, number `forward` of the stage. Returns what `engines.step` does."""
        torch.manual_seed(keyed.key("dropout", self._seed, forward, self._world.rank) >> 1)
        outcome = self._engine(batch, stage=self._stage.stage, seed=self._seed, step=forward)
        values.add(outcome, self._parts, share)
        self._engine.backward(outcome.total * share)
        try:
            return engines.step(self._engine, self._settings)
        except MvptrError as fault:
            with self._world.together():  # all know; one says it
                raise fault

    def _flops(self, parts: list[Batch]) -> float:
        configuration = self._engine.module.configuration
        return sum(batch_flops(configuration, part, stage=self._stage.stage, ranks=self._world.size) for part in parts)

    def _temperature(self) -> float | None:
        model = self._engine.module
        return temperature(model.logit_scale.detach(), model.configuration.max_similarity_scale)

    def _due(self, saved: float) -> bool:
        """Whether it is time for a checkpoint after this step; the first rank's clock counts."""
        checkpoints = self._settings.checkpoints
        by_step = checkpoints.steps is not None and (self.done + 1) % checkpoints.steps == 0
        return by_step or (checkpoints.minutes is not None and time.monotonic() - saved >= 60 * checkpoints.minutes)

    def _sync(self, log: RunLog | None) -> None:
        with self._world.together():
            if log is not None:
                log.sync()

    def _save(self, log: RunLog | None) -> Path:
        self._sync(log)
        place = Place(
            stage=self._stage.stage,
            step=self.done,
            ranks=self._world.size,
            zero=engines.zero_stage(self._settings),
            stream=self._loader.state_dict(),
        )
        return save_checkpoint(self._engine, self._output, place, self._world, self._settings.checkpoints.keep)


def stopped(number: int, what: str) -> StoppedError:
    """The error that ends a run which a signal stopped."""
    return StoppedError(
        f"stopped by {signal.Signals(number).name}: {what}", "The same command goes on from there.", number
    )
