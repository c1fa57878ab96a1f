"""What of a run's log is a function of its settings: all but how fast it was."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvptr_model.training.log import read_log

MEASURED = ("samples_per_second", "tokens_per_second", "data_wait", "flops_utilisation", "samples_left_out")


def curve(output: str | Path) -> list[dict[str, Any]]:
    """The log's records without measured times."""
    return [{name: value for name, value in one.items() if name not in MEASURED} for one in read_log(Path(output))]


def places(output: str | Path) -> list[tuple[int, int]]:
    """Stage and step of each record."""
    return [(record["stage"], record["step"]) for record in curve(output)]


def weights(output: str | Path, stage: int = 2) -> str:
    """The sha256 of a stage's weights."""
    return hashlib.sha256((Path(output) / f"stage-{stage}" / "weights.safetensors").read_bytes()).hexdigest()


class Heard:
    """A listener that remembers what was said, and does something at a step."""

    def __init__(self, at: Mapping[tuple[int, int], Any] | None = None) -> None:
        self.lines: list[str] = []
        self._at = dict(at or {})

    def say(self, line: str) -> None:
        self.lines.append(line)

    def begin(self, stage: int, done: int, steps: int) -> None:
        self.lines.append(f"stage {stage}: {done} of {steps}")

    def step(self, record: Mapping[str, Any]) -> None:
        if act := self._at.pop((record["stage"], record["step"]), None):
            act()

    def end(self) -> None:
        pass
