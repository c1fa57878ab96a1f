"""How pre-training goes, on a terminal or as lines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from mvptr_data.storage import Store
from pipelines.console import Reporter, Step

#: Seconds between two lines that tell the losses.
LOSS_INTERVAL = 30.0


class TrainingProgress:
    """A `Listener` of `mvptr_model.training.log` that speaks through a command's reporter."""

    def __init__(self, reporter: Reporter, output: str) -> None:
        """The log goes to `output` once a stage begins: until then a mistyped path leaves no folder behind."""
        self._reporter, self._output, self._stack = reporter, Store.at(output), ExitStack()
        self._step: Step | None = None
        self._made, self._spoken, self._logged = 0, 0.0, False

    def say(self, line: str) -> None:
        self._reporter.say(line)

    def begin(self, stage: int, done: int, steps: int) -> None:
        if not self._logged:
            self._reporter.keep_log(self._output, "pretrain")
            self._logged = True
        self._step = self._stack.enter_context(self._reporter.step(f"stage {stage}", steps - done, "steps"))
        self._made, self._spoken = done, time.monotonic()
        if done:
            self.say(f"stage {stage}: {done:,} of {steps:,} steps are made already")

    def step(self, record: Mapping[str, Any]) -> None:
        if self._step is not None:
            self._step.advance(record["step"] - self._made)
        self._made = record["step"]
        if time.monotonic() - self._spoken >= LOSS_INTERVAL:
            self._spoken = time.monotonic()
            self.say(line(record))

    def end(self) -> None:
        self._stack.close()


def line(record: Mapping[str, Any]) -> str:
    """`step 120: loss 8.41 (vsc 2.1, mlm 6.3), 512.0 samples/s`."""
    losses = ", ".join(f"{name} {value:.3g}" for name, value in record["losses"].items())
    return (
        f"step {record['step']:,}: loss {record['loss']:.4g} ({losses}), {record['samples_per_second']:,.1f} samples/s"
    )
