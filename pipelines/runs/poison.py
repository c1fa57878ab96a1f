"""Finding the inputs that kill the process that touches them: halve the shard, see which half kills, go on with that one.

Nothing is caught inside the process, because nothing can be: a decoder that crashes and a worker ended for its memory leave
no exception. A probe is a task of its own; the cluster says whether its worker survived. Probes run one at a time, so that
no innocent one dies with a neighbor.
"""

from __future__ import annotations

from collections.abc import Callable

from mvptr_data.errors import IncompleteError
from pipelines.cluster import Cluster, TaskFailure


def find_poison(cluster: Cluster, probe: Callable[[range], int], count: int, *, limit: int) -> frozenset[int]:
    """The positions of 0 .. `count` - 1 that kill alone; empty where every half survives, as after a passing shortage.

    Costs about 2 log2(count) probes for each. Raises `IncompleteError` for more than `limit` of them: then it is not the
    images.
    """
    found: set[int] = set()
    suspects = _halves(range(count)) if count > 1 else [range(count)]
    while suspects:
        span = suspects.pop()
        if _survives(cluster, probe, span):
            continue
        if len(span) > 1:
            suspects += _halves(span)
            continue
        found.add(span.start)
        if len(found) > limit:
            raise IncompleteError(
                f"more than {limit} inputs of one shard end the process that reads them",
                "Look at the workers' memory and their logs; then run the same command again.",
            )
    return frozenset(found)


def _survives(cluster: Cluster, probe: Callable[[range], int], span: range) -> bool:
    [(_, outcome)] = cluster.run_tasks(probe, [span])
    if isinstance(outcome, TaskFailure) and not outcome.killed:
        raise IncompleteError(f"a probe could not be done ({outcome.reason})", "Run the same command again.")
    return not isinstance(outcome, TaskFailure)


def _halves(span: range) -> list[range]:
    middle = (span.start + span.stop) // 2
    return [range(middle, span.stop), range(span.start, middle)]  # the first half is popped first
