"""The same command gives the same bytes: twice, on any cluster, and through kill -9 of a worker and of the client."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

#: More shards than a run can finish before it is killed.
PICTURES, PER_SHARD = 48, 2


def digests(out: Path) -> dict[str, str]:
    """sha256 of every file that promises to be the same: all but logs, locks and the timings in receipts."""
    files = [
        path for path in out.rglob("*") if path.is_file() and path.relative_to(out).parts[0] not in ("logs", "locks")
    ]
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.suffix != ".json" or path.name == "manifest.json"
    }


def test_twice_and_on_a_local_cluster_the_bytes_are_the_same(world, published: Path, build, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for cluster in ("inline", "local"):
        build(world, tmp_path / cluster, cluster)
        assert digests(tmp_path / cluster) == digests(published)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mvptr_data.abstract_scenes import write_world

    folder = tmp_path_factory.mktemp("many")
    write_world(folder, count=PICTURES, seed=11)
    return folder


def command(pictures: Path, out: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "pipelines.cli", "extract-regions", str(pictures / "images"), str(out)),
        *("--samples-per-shard", str(PER_SHARD), "--workers", "2"),
    ]


def receipts(out: Path) -> int:
    return sum(path.stem.isdigit() for path in (out / "regions").glob("*.json"))


def workers_of(pid: int) -> list[int]:
    """Worker processes below a client (spawned through a nanny). Threads and processes may end while they are looked at."""
    children, workers = [], []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):  # a child belongs to the thread that made it
        with contextlib.suppress(OSError):
            children += [int(child) for child in task.read_text().split()]
    for child in children:
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                workers.append(child)
    return [*workers, *(grandchild for child in children for grandchild in workers_of(child))]


def start_and_stop(
    arguments: list[str], out: Path, stop: Callable[[subprocess.Popen[str]], None], **options: Any
) -> tuple[subprocess.Popen[str], str]:
    """Start a run and `stop` it when it has written three shards; the process that has ended, and its errors.

    A run that has written half of them before it could be stopped is started anew.
    """
    for _ in range(5):
        with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, **options) as process:
            try:
                deadline = time.monotonic() + 300
                while receipts(out) < 3 and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.005)
                in_time = receipts(out) <= PICTURES // PER_SHARD // 2 and process.poll() is None
                with contextlib.suppress(ProcessLookupError):
                    stop(process)
                errors = process.communicate(timeout=600)[1]
            finally:
                process.kill()
        assert receipts(out) >= 3, errors
        if in_time:
            return process, errors
        shutil.rmtree(out)
    pytest.fail("every run ended before it could be stopped")


def kill_a_worker(client: subprocess.Popen[str]) -> None:
    while client.poll() is None:
        if workers := workers_of(client.pid):
            os.kill(workers[-1], signal.SIGKILL)
            return
        time.sleep(0.005)


def test_killed_worker_and_killed_client_end_in_the_same_bytes(pictures: Path, tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    subprocess.run(command(pictures, undisturbed), check=True, capture_output=True)
    assert receipts(undisturbed) == PICTURES // PER_SHARD

    worker_killed = tmp_path / "worker"
    process, errors = start_and_stop(command(pictures, worker_killed), worker_killed, kill_a_worker)
    assert process.returncode == 0, errors
    assert digests(worker_killed) == digests(undisturbed)

    client_killed = tmp_path / "client"
    process, _ = start_and_stop(command(pictures, client_killed), client_killed, lambda client: client.kill())
    assert process.returncode == -signal.SIGKILL
    assert receipts(client_killed) < PICTURES // PER_SHARD
    again = subprocess.run(command(pictures, client_killed), check=True, capture_output=True, text=True)
    assert "shards have receipts and are kept" in again.stderr
    assert digests(client_killed) == digests(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_so_in_one_line(pictures: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C reaches every process of a terminal's group; SIGTERM comes from Slurm and containers."""
    out = tmp_path / "out"
    process, errors = start_and_stop(
        command(pictures, out),
        out,
        lambda client: (os.killpg if number == signal.SIGINT else os.kill)(client.pid, number),
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "Stopped. The same command goes on from here." and "Traceback" not in errors
    assert list((out / "locks").iterdir()) == []


@pytest.mark.slow
def test_killed_at_random_again_and_again_it_ends_in_the_same_bytes(pictures: Path, tmp_path: Path) -> None:
    """All three steps, each killed with SIGKILL after a random time until one run of it is let through."""

    def steps(out: Path) -> list[list[str]]:
        start = [sys.executable, "-m", "pipelines.cli"]
        return [
            command(pictures, out),
            [
                *start,
                "build-phrase-vocab",
                str(pictures / "captions.jsonl"),
                str(out),
                "--min-sentences",
                "2",
                "--workers",
                "2",
            ],
            [*start, "write-shards", str(out), "--workers", "2"],
        ]

    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    for arguments in steps(undisturbed):
        subprocess.run(arguments, check=True, capture_output=True)
    random = Random(20)
    killed = 0
    for arguments in steps(disturbed):
        for _ in range(7):
            with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=random.uniform(0.5, 12.0))
                killed += process.poll() is None
                process.kill()
        subprocess.run(arguments, check=True, capture_output=True)
    assert killed >= 5
    assert digests(disturbed) == digests(undisturbed)
