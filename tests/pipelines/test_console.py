from __future__ import annotations

import re
from pathlib import Path

import pytest

from mvptr_data.storage import Store
from pipelines.console import Reporter, duration, pace


@pytest.mark.parametrize(("rate", "said"), [(1234.5, "1,234.5/s"), (1.0, "1.0/s"), (0.03, "1.8/min"), (0.001, "3.6/h")])
def test_rates_are_said_in_the_unit_that_tells_them(rate: float, said: str) -> None:
    assert pace(rate) == said


@pytest.mark.parametrize(("seconds", "said"), [(0.21, "0.2 s"), (59, "59 s"), (95, "1 min 35 s"), (7260, "2 h 01 min")])
def test_durations_are_said_in_two_units_at_most(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_two_runs_of_one_second_and_one_process_number_keep_both_logs(tmp_path: Path) -> None:
    one, other = Reporter(quiet=True), Reporter(quiet=True)
    other._started = one._started
    for reporter, line in ((one, "first"), (other, "second")):
        reporter.keep_log(Store.at(tmp_path), "verify")
        reporter.say(line)
    logs = list((tmp_path / "logs").iterdir())
    assert sorted(log.read_text().split()[-1] for log in logs) == ["first", "second"]
    assert all(re.fullmatch(r"verify-\d{8}T\d{6}-\d+-[0-9a-f]{4}\.log", log.name) for log in logs)
