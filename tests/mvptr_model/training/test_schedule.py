from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_model.training.schedule import learning_rate
from mvptr_model.training.settings import StageSettings

PEAK = 1e-4


@given(st.integers(1, 300), st.floats(0, 1))
def test_it_rises_to_the_peak_and_falls(steps: int, warm_up: float) -> None:
    stage = StageSettings(stage=1, steps=steps, learning_rate=PEAK, warm_up=warm_up)
    rates = [learning_rate(stage, step, steps) for step in range(steps)]
    assert max(rates) == pytest.approx(PEAK)
    assert all(0 < rate <= PEAK * (1 + 1e-12) for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_the_papers_schedule() -> None:
    stage = StageSettings(stage=1, steps=100, learning_rate=PEAK)
    found = [learning_rate(stage, step, 100) for step in (0, 9, 19, 20, 60, 99)]
    assert found == pytest.approx([PEAK / 20, PEAK / 2, PEAK, PEAK, PEAK / 2, PEAK / 80])
