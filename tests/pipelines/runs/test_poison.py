from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.dataset.planning import write_plan
from mvptr_data.errors import IncompleteError
from mvptr_data.sources.images import ImageRef
from mvptr_data.storage import Store
from pipelines.cluster import ClusterOptions, TaskFailure
from pipelines.console import reporting
from pipelines.runs.poison import find_poison
from pipelines.runs.runner import ShardRunner


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


def test_a_shard_with_too_much_poison_keeps_no_other_from_being_done(tmp_path: Path) -> None:
    """Whole shards kill as soon as an image in them does; only shard 1 is full of such."""

    class Cluster(Deadly):
        def run_tasks(self, function: Callable[..., Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
            for item in items:
                if isinstance(item, range):
                    yield from super().run_tasks(function, [item])
                else:
                    yield item, TaskFailure("KilledWorker", killed=True) if item == 1 else function(item)

    plan = write_plan(
        Store.at(tmp_path),
        [ImageRef(key=str(number), uri=f"/{number}.jpg") for number in range(150)],
        source={},
        samples_per_shard=50,
    )
    with reporting(quiet=True) as reporter:
        runner = ShardRunner(
            Store.at(tmp_path),
            Cluster(set(range(50))),  # type: ignore[arg-type]
            ClusterOptions(cluster="local"),
            reporter,
            plan,
            lambda shard, span: len(span),
        )
        done = dict(runner.run(lambda shard: f"shard {shard}", range(3)))  # type: ignore[arg-type,return-value]
    assert (done[0], done[2]) == ("shard 0", "shard 2")
    assert isinstance(done[1], TaskFailure) and "inputs of one shard end the process" in done[1].reason
