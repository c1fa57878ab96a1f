"""Broken and hostile data sets: every reader ends with a typed error or a result, and touches nothing beside its folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks/fuzz_format.py"


def fuzz(inputs: int, seed: int) -> str:
    command = [sys.executable, str(SCRIPT), "--inputs", str(inputs), "--seed", str(seed)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60 * inputs)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def test_no_broken_data_set_is_a_surprise() -> None:
    assert re.search(r"^inputs 40, findings 0$", said := fuzz(40, seed=0), re.MULTILINE), said


@pytest.mark.slow
def test_no_broken_data_set_of_thousands_is_a_surprise() -> None:
    assert re.search(r"^inputs 3000, findings 0$", said := fuzz(3000, seed=100_000), re.MULTILINE), said
