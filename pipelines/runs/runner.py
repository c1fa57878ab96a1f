"""Doing shards, whatever dies on the way.

A task whose workers keep dying is tried once more by itself; if it kills again, the input that does it is found
(`poison.py`), recorded under `worker_killed`, and the rest of the shard is done. Without a cluster it is this process that
dies, so a mark on disk counts the deaths of each shard, and one that has caused two is done in a process of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from mvptr_data.dataset.plan import Plan
from mvptr_data.dataset.receipts import Receipt
from mvptr_data.errors import DamagedFileError, IncompleteError
from mvptr_data.storage import Store
from pipelines.cluster import Cluster, ClusterOptions, TaskFailure, open_cluster
from pipelines.console import Reporter
from pipelines.runs.poison import find_poison

#: A shard that ended this process so often is done in another.
DEATHS = 2
#: More inputs of one shard that kill alone than this, and it is not the inputs.
MAX_POISON = 20

#: `function(shard)` does a shard; `function(shard, poison=positions)` without certain inputs, where there is a `Probe`.
ShardFunction = Callable[..., Receipt]
#: `probe(shard, span)` does what may kill to a span of a shard's inputs, and writes nothing.
Probe = Callable[[int, range], int]


class ShardRunner:
    """Runs shard functions on a cluster. Without a `probe`, a shard that kills its workers stays undone."""

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        options: ClusterOptions,
        reporter: Reporter,
        plan: Plan,
        probe: Probe | None = None,
    ) -> None:
        self._store, self._cluster, self._options, self._plan = store, cluster, options, plan
        self._reporter, self._probe = reporter, probe

    def run(self, function: ShardFunction, shards: Iterable[int]) -> Iterator[tuple[int, Receipt | TaskFailure]]:
        """(shard, outcome) as they come; those that killed their workers come last."""
        killed = []
        first = (
            self._here(function, shards)
            if self._options.cluster == "inline"
            else self._cluster.run_tasks(function, shards)
        )
        for shard, outcome in first:
            if isinstance(outcome, TaskFailure) and outcome.killed:
                killed.append(shard)
            else:
                yield shard, outcome
        for shard in killed:
            yield shard, self._without_poison(self._cluster, function, shard)

    def _here(self, function: ShardFunction, shards: Iterable[int]) -> Iterator[tuple[int, Receipt | TaskFailure]]:
        """Each shard in this process, but for those that ended it before."""
        for shard in shards:
            mark = f"locks/attempts/{shard:05d}.json"
            deaths = _deaths(self._store, mark)
            self._store.write_json(mark, {"deaths": deaths + 1})  # unless this process lives to remove it
            try:
                if deaths < DEATHS:
                    yield shard, function(shard)
                else:
                    self._reporter.say(f"shard {shard} ended this process {deaths} times; it is done in another")
                    apart = ClusterOptions(cluster="local", workers=1, threads=self._options.threads)
                    with open_cluster(apart) as cluster:
                        yield shard, self._without_poison(cluster, function, shard)
            finally:
                with contextlib.suppress(OSError):
                    self._store.remove(mark)

    def _without_poison(self, cluster: Cluster, function: ShardFunction, shard: int) -> Receipt | TaskFailure:
        """A shard whose task killed its workers: alone, and if that kills too, without the inputs that do it."""
        outcome = _one(cluster, function, shard)
        if self._probe is None or not (isinstance(outcome, TaskFailure) and outcome.killed):
            return outcome
        self._reporter.say(f"shard {shard} ends its workers; looking for the input that does it")
        try:
            poison = find_poison(cluster, partial(self._probe, shard), self._plan.rows[shard], limit=MAX_POISON)
        except IncompleteError as error:  # this shard stays undone, the others need not
            return TaskFailure(str(error), killed=True)
        listed = ", ".join(map(str, sorted(poison))) or "none: no part of it kills alone"
        self._reporter.say(f"shard {shard}: inputs that end their process, by position: {listed}")
        return _one(cluster, partial(function, poison=poison), shard)


def _one(cluster: Cluster, function: ShardFunction, shard: int) -> Receipt | TaskFailure:
    [(_, outcome)] = cluster.run_tasks(function, [shard])
    return outcome


def _deaths(store: Store, mark: str) -> int:
    try:
        found = store.read_json(mark).get("deaths", 0)
    except (FileNotFoundError, DamagedFileError):
        return 0
    return found if isinstance(found, int) else 0
