"""A real LocalCluster; tasks are module-level functions, as workers need them."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import dask
import pytest
import torch
from distributed import LocalCluster

from mvptr_data.errors import IncompleteError, InputError, MissingDependencyError
from pipelines.cluster import ClusterOptions, TaskFailure, once_per_process, open_cluster
from pipelines.cluster import tasks as cluster_tasks
from pipelines.cluster.options import THREAD_VARIABLES

# Workers import tasks by name; this file is not on their path, so the tasks below come from the standard library.


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 120
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


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

    monkeypatch.setattr(cluster_tasks, "IN_FLIGHT", 2)
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


@pytest.mark.parametrize("others", [2, 30], ids=["fewer than Dask keeps at the scheduler", "more"])
def test_a_poison_task_is_found_and_takes_no_bystander_with_it(others: int) -> None:
    poison = "__import__('os')._exit(1)"
    with open_cluster(ClusterOptions(cluster="local", workers=2)) as running:
        outcomes = dict(running.run_tasks(eval, [poison, *(f"{number} + 1" for number in range(others))]))
    failed = outcomes.pop(poison)
    assert isinstance(failed, TaskFailure) and failed.killed and "KilledWorker" in failed.reason
    assert outcomes == {f"{number} + 1": number + 1 for number in range(others)}


def test_workers_compute_with_the_threads_asked_for_and_the_users_configuration_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    before = json.dumps(dask.config.config, default=str), dict(os.environ)
    for threads in (1, 2):
        with open_cluster(ClusterOptions(cluster="local", workers=1, threads=threads)) as running:
            [(_, told)] = running.run_tasks(eval, ["__import__('os').environ['OMP_NUM_THREADS']"])
        assert told == str(threads)
        assert (json.dumps(dask.config.config, default=str), dict(os.environ)) == before


def test_no_worker_hears_ctrl_c_nor_the_one_that_takes_its_place() -> None:
    bit = 1 << (signal.SIGINT - 1)

    def hears(process: int) -> bool:
        lines = dict(line.split(":") for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return not (int(lines["SigBlk"], 16) | int(lines["SigIgn"], 16)) & bit

    with open_cluster(ClusterOptions(cluster="local", workers=1)) as running:
        [(_, first)] = running.run_tasks(eval, ["__import__('os').getpid()"])
        assert not hears(first)
        os.kill(first, signal.SIGKILL)
        [(_, second)] = running.run_tasks(eval, ["__import__('os').getpid()"])
        assert second != first and not hears(second)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_ctrl_c_while_workers_start_is_heard_once_they_have() -> None:
    def interrupt() -> None:
        assert until(lambda: bool(multiprocessing.active_children()))
        os.kill(os.getpid(), signal.SIGINT)

    impatient = threading.Thread(target=interrupt)
    impatient.start()
    with pytest.raises(KeyboardInterrupt), open_cluster(ClusterOptions(cluster="local", workers=1)):
        impatient.join()
    assert not multiprocessing.active_children()


def test_a_slow_generator_keeps_no_result_waiting_and_its_error_is_raised_here() -> None:
    second = threading.Event()

    def items() -> Iterator[int]:
        yield -1
        yield -2
        assert second.wait(120), "the second result was kept until the third item was there"
        yield -3
        raise ValueError("no more")

    with open_cluster(ClusterOptions(cluster="local", workers=1)) as running:
        results = running.run_tasks(abs, items())
        assert [next(results)[1], next(results)[1]] == [1, 2]
        second.set()
        with pytest.raises(ValueError, match="no more"):
            list(results)


@pytest.mark.parametrize("others", [1, 4])
def test_results_that_died_with_their_worker_are_computed_again(others: int) -> None:
    with open_cluster(ClusterOptions(cluster="local", workers=1)) as running:
        results = running.run_tasks(abs, range(-1 - others, 0))
        assert next(results)[1] == 1 + others
        # The others are done as well, and their results are with the worker alone.
        assert until(lambda: all(task.status == "finished" for task in running._client.futures.values()))
        os.kill(next(iter(running._client.run(os.getpid).values())), signal.SIGKILL)
        assert sorted(result for _, result in results) == list(range(1, 1 + others))


def test_while_a_result_does_not_come_the_workers_are_looked_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "go"
    exists, sleep = f"lambda: __import__('os').path.exists({str(go)!r})", "__import__('time').sleep(0.01)"
    monkeypatch.setattr(cluster_tasks, "ASK_SECONDS", 0.2)
    with open_cluster(ClusterOptions(cluster="local", workers=1)) as running:
        (worker,) = running._client.run(os.getpid).values()
        looks: list[float] = []

        def keep() -> None:
            looks.append(time.monotonic())
            if len(looks) == 3:
                os.kill(worker, signal.SIGKILL)

        results = running.run_tasks(eval, ["1", f"[{sleep} for _ in iter({exists}, True)][:0] or 2"])
        assert next(results)[1] == 1
        go.touch()
        assert until(lambda: all(task.status == "finished" for task in running._client.futures.values()))
        os.kill(worker, signal.SIGSTOP)  # it has the second result, and does not answer
        running._keep = keep
        assert [result for _, result in results] == [2]
    assert max(looks[1] - looks[0], looks[2] - looks[1]) < 20


def test_a_worker_that_is_long_in_coming_back_is_waited_for() -> None:
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "10 ms"}),  # shorter than any start
        open_cluster(ClusterOptions(cluster="local", workers=1)) as running,
    ):
        for _ in range(2):
            os.kill(next(iter(running._client.run(os.getpid).values())), signal.SIGKILL)
            assert list(running.run_tasks(abs, [-1])) == [(-1, 1)]


def test_a_worker_whose_nanny_has_ended_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_tasks, "ASK_SECONDS", 0.2)
    with open_cluster(ClusterOptions(cluster="local", workers=1)) as running:
        cluster = running._client.cluster
        cluster.sync(next(iter(cluster.workers.values())).close)
        assert list(running.run_tasks(abs, [-1])) == [(-1, 1)]


def test_a_cluster_that_lost_its_workers_ends_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_tasks, "WORKERS_TIMEOUT", 1)
    monkeypatch.setattr(cluster_tasks, "ASK_SECONDS", 0.2)
    monkeypatch.setattr(cluster_tasks, "IN_FLIGHT", 1)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as remote,
        open_cluster(ClusterOptions(cluster=remote.scheduler_address)) as running,
    ):
        results = running.run_tasks(time.sleep, [0.0, 0.0])
        next(results)
        remote.scale(0)
        while running._client.nthreads():
            time.sleep(0.05)
        with pytest.raises(IncompleteError, match="no worker for 1 s"):
            next(results)


def test_a_killed_scheduler_ends_the_run_in_one_line() -> None:
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[method-assign, assignment]
    logger = logging.getLogger("distributed.client")
    logger.addHandler(handler)
    arguments = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    with ExitStack() as stack:
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", *arguments]
        scheduler = stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        stack.callback(scheduler.kill)
        assert scheduler.stderr is not None
        address = next(line for line in scheduler.stderr if "Scheduler at:" in line).split()[-1]
        command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]
        worker = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        stack.callback(worker.kill)
        with (
            pytest.raises(IncompleteError, match="the Dask scheduler is gone"),
            open_cluster(ClusterOptions(cluster=address)) as running,
        ):
            for number, _ in enumerate(running.run_tasks(time.sleep, [0.1] * 20)):
                if number == 2:
                    scheduler.kill()
        assert worker.wait(timeout=120) is not None
    logger.removeHandler(handler)
    assert not said


def test_one_worker_a_gpu() -> None:
    options = ClusterOptions(cluster="local-cuda")
    if find_spec("dask_cuda") is None:
        with pytest.raises(MissingDependencyError, match=r"pip install 'mvptr-data\[cuda\]'"), open_cluster(options):
            pass
    elif not torch.cuda.device_count():
        with pytest.raises(InputError, match="finds 0 GPUs"), open_cluster(options):
            pass
    else:
        with open_cluster(options) as running:
            asked = "__import__('os').environ['CUDA_VISIBLE_DEVICES'].split(',')[0]"
            firsts = running._client.run(eval, asked).values()
            assert len(set(firsts)) == len(firsts) == torch.cuda.device_count()


@pytest.mark.parametrize("options", [{"cluster": "slrum"}, {"threads": 0}, {"workers": 0}])
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        ClusterOptions(**options)  # type: ignore[arg-type]


def test_made_once_per_process_and_arguments() -> None:
    made: list[int] = []

    def factory(number: int) -> int:
        made.append(number)
        return number

    assert [once_per_process(factory, number) for number in (1, 2, 1)] == [1, 2, 1]
    assert made == [1, 2]
