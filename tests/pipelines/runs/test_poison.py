from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.errors import IncompleteError
from pipelines.cluster import TaskFailure
from pipelines.runs.poison import find_poison


class Deadly:
    """A cluster whose workers die of certain positions."""

    def __init__(self, poison: set[int]) -> None:
        self.poison, self.probes = poison, 0

    def run_tasks(self, function: Callable[[range], Any], items: Iterable[range]) -> Iterator[tuple[range, Any]]:
        for span in items:
            self.probes += 1
            died = self.poison.intersection(span)
            yield span, TaskFailure("KilledWorker", killed=True) if died else function(span)


@given(st.integers(1, 300), st.data())
def test_exactly_the_deadly_positions_are_found(count: int, data: st.DataObject) -> None:
    poison = data.draw(st.sets(st.integers(0, count - 1), max_size=4))
    cluster = Deadly(poison)
    assert find_poison(cluster, len, count, limit=4) == poison  # type: ignore[arg-type]
    assert cluster.probes <= 2 + 2 * len(poison) * count.bit_length()


def test_many_deaths_are_not_the_images() -> None:
    with pytest.raises(IncompleteError, match="more than 3 inputs"):
        find_poison(Deadly(set(range(50))), len, 50, limit=3)  # type: ignore[arg-type]
