"""A real LocalCluster; tasks are module-level functions, as workers need them."""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path

import pytest
from distributed import LocalCluster

from mvptr_data.errors import IncompleteError, InputError
from pipelines import cluster as cluster_module
from pipelines.cluster import ClusterOptions, TaskFailure, once_per_process, open_cluster

# Workers import tasks by name; this file is not on their path, so the tasks below come from the standard library.


def test_inline_runs_in_order_in_this_process() -> None:
    with open_cluster(ClusterOptions(cluster="inline")) as running:
        assert list(running.run_tasks(abs, [-1, 2, -3])) == [(-1, 1), (2, 2), (-3, 3)]


def test_a_local_cluster_does_every_task_and_writes_its_report(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    with open_cluster(ClusterOptions(cluster="local", workers=2), report=str(report)) as running:
        assert sorted(running.run_tasks(abs, range(-40, 0))) == [(-n, n) for n in range(40, 0, -1)]
        failed = dict(running.run_tasks(int, ["1", "x", "3"]))
        assert failed["1"] == 1 and failed["3"] == 3
        assert isinstance(failed["x"], TaskFailure) and "invalid literal" in failed["x"].reason
        with pytest.raises(IncompleteError, match="task x could not be done"):
            list(running.complete(int, ["x"]))
        assert sorted(running.complete(int, ["4", "5"])) == [("4", 4), ("5", 5)]
    assert "<html" in report.read_text()[:2000].lower()


def test_submission_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = 0

    def items() -> object:
        nonlocal drawn
        for number in range(100):
            drawn += 1
            yield number

    monkeypatch.setattr(cluster_module, "IN_FLIGHT", 2)
    with open_cluster(ClusterOptions(cluster="local", workers=1)) as running:
        results = running.run_tasks(abs, items())  # type: ignore[arg-type]
        next(results)
        assert drawn <= 3
        assert sum(1 for _ in results) == 99


def test_a_killed_workers_tasks_are_run_again(tmp_path: Path) -> None:
    with open_cluster(ClusterOptions(cluster="local", workers=2)) as running:
        sleepers = running.run_tasks(time.sleep, [0.2] * 12)
        next(sleepers)
        victim = running._client.run(os.getpid)  # what a user does with `kill -9`
        os.kill(next(iter(victim.values())), signal.SIGKILL)
        assert sum(1 for _, outcome in sleepers if outcome is None) == 11


def test_a_poison_task_ends_as_a_failure_not_as_a_hang() -> None:
    with open_cluster(ClusterOptions(cluster="local", workers=1)) as running:
        outcomes = dict(running.run_tasks(functools.partial(os.kill, 0), [0]))  # signal 0 to the own group: harmless
        assert outcomes == {0: None}
        [(_, outcome)] = running.run_tasks(os._exit, [1])
        assert isinstance(outcome, TaskFailure) and "KilledWorker" in outcome.reason


def test_a_cluster_that_lost_its_workers_ends_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "WORKERS_TIMEOUT", 1)
    monkeypatch.setattr(cluster_module, "ASK_SECONDS", 0.2)
    monkeypatch.setattr(cluster_module, "IN_FLIGHT", 1)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as remote,
        open_cluster(ClusterOptions(cluster=remote.scheduler_address)) as running,
    ):
        results = running.run_tasks(time.sleep, [0.0, 0.0])
        next(results)
        remote.scale(0)
        while running._client.nthreads():
            time.sleep(0.05)
        with pytest.raises(IncompleteError, match="no worker for 1 s"):
            next(results)


@pytest.mark.parametrize("options", [{"cluster": "slrum"}, {"threads": 0}, {"workers": 0}])
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        ClusterOptions(**options)  # type: ignore[arg-type]


def test_a_silent_address_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"127\.0\.0\.1:1"), open_cluster(ClusterOptions(cluster="tcp://127.0.0.1:1")):
        pass


def test_made_once_per_process_and_arguments() -> None:
    made: list[int] = []

    def factory(number: int) -> int:
        made.append(number)
        return number

    assert [once_per_process(factory, number) for number in (1, 2, 1)] == [1, 2, 1]
    assert made == [1, 2]
