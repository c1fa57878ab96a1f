from __future__ import annotations

import pytest

from pipelines.console import duration, pace


@pytest.mark.parametrize(("rate", "said"), [(1234.5, "1,234.5/s"), (1.0, "1.0/s"), (0.03, "1.8/min"), (0.001, "3.6/h")])
def test_rates_are_said_in_the_unit_that_tells_them(rate: float, said: str) -> None:
    assert pace(rate) == said


@pytest.mark.parametrize(("seconds", "said"), [(0.21, "0.2 s"), (59, "59 s"), (95, "1 min 35 s"), (7260, "2 h 01 min")])
def test_durations_are_said_in_two_units_at_most(seconds: float, said: str) -> None:
    assert duration(seconds) == said
