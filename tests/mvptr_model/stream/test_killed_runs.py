"""A run that is killed twenty times, and goes on each time with other numbers of ranks and workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.synthetic import NamesOnly, write_data_set
from mvptr_model.stream.batches import StreamSpec
from mvptr_model.stream.loader import StreamLoader
from mvptr_model.stream.settings import OrderSettings

SAMPLES, KILLS = 200_000, 20
ORDER = OrderSettings(global_batch=480, canonical_streams=8, seed=3)

State = dict[str, Any] | None

#: One process of a run: its ranks' parts of each batch go to one log a rank; how far it is, to a state file a process.
PROCESS = """
import json, os, sys, time
from benchmarks.synthetic import NamesOnly
from mvptr_model.stream.batches import StreamSpec
from mvptr_model.stream.loader import StreamLoader
from mvptr_model.stream.settings import OrderSettings

if __name__ == "__main__":
    root, folder, order, state, ranks, world, workers = json.loads(sys.argv[1])
    specs = [
        StreamSpec(roots=(root,), order=OrderSettings(**order), collate=NamesOnly(), rank=rank, world=world) for rank in ranks
    ]
    loaders = [StreamLoader(spec, workers=workers, prefetch_bytes=1 << 20) for spec in specs]
    for loader in loaders if state else ():
        loader.load_state_dict(state)
    logs = [open(f"{folder}/rank-{rank}.txt", "w") for rank in ranks]
    for parts in zip(*loaders):
        time.sleep(0.01)  # so that no run is at the end before it is killed
        for log, part in zip(logs, parts):
            log.write(json.dumps([name[0] for name in part.names]) + "\\n")
            log.flush()
        with open(f"{folder}/state-{ranks[0]}.tmp", "w") as file:
            json.dump(loaders[0].state_dict(), file)
        os.replace(file.name, f"{folder}/state-{ranks[0]}.json")
"""


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path: Path) -> None:
    """200,000 samples; two real processes for two ranks, ranks beyond that share one; 0 to 3 workers each."""
    root, folder = str(tmp_path / "data"), tmp_path / "run"
    write_data_set(root, SAMPLES, regions=0)
    undisturbed = [
        [name[0] for name in batch.names if name]
        for batch in StreamLoader(StreamSpec(roots=(root,), order=ORDER, collate=NamesOnly()))
    ]
    random, state = Random(0), None
    found: list[list[str]] = []
    for _ in range(KILLS):
        state = run_and_kill(root, folder, state, found, random, lines=random.randrange(16))
        assert state is None or state["epoch"] == 0, "it was at the end before it was killed"
    run_and_kill(root, folder, state, found, random, lines=None)
    assert found == undisturbed
    assert len({name for batch in found for name in batch}) == len(undisturbed) * ORDER.global_batch


def run_and_kill(
    root: str, folder: Path, state: State, found: list[list[str]], random: Random, *, lines: int | None
) -> State:
    """Go on from `state` until everything is killed, a moment after rank 0 has logged so many lines; appends whole batches to
    `found`, returns the state."""
    world, workers = random.choice([1, 2, 3, 4, 8]), random.randrange(4)
    processes = [[0], [1]] if world == 2 else [list(range(world))]
    if len(processes[0]) > 2:
        workers = 0  # a loader a rank in one process
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    script = folder / "process.py"
    script.write_text(PROCESS)
    order = {name: getattr(ORDER, name) for name in ("global_batch", "canonical_streams", "seed")}
    running = [
        subprocess.Popen(
            [sys.executable, str(script), json.dumps([root, str(folder), order, state, ranks, world, workers])],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3]), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        for ranks in processes
    ]
    if lines is None:
        assert [process.wait() for process in running] == [0] * len(running)
    else:
        wait_for(folder / "rank-0.txt", lines, running)
        time.sleep(random.uniform(0, 0.1))
        for process in running:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    states = [folder / f"state-{ranks[0]}.json" for ranks in processes]
    if not all(path.exists() for path in states):
        return state
    saved = min((json.loads(path.read_text()) for path in states), key=lambda one: (one["epoch"], one["samples"]))
    batches = len(found) + len((folder / "rank-0.txt").read_text().splitlines())
    done = (saved["samples"] // ORDER.global_batch if saved["epoch"] == 0 else batches) - len(found)
    logs = [(folder / f"rank-{rank}.txt").read_text().splitlines()[:done] for rank in range(world)]
    found += [[name for part in parts for name in json.loads(part)] for parts in zip(*logs, strict=True)]
    return saved


def wait_for(log: Path, lines: int, running: list[subprocess.Popen[bytes]]) -> None:
    """Until a log is there with so many lines."""
    end = time.monotonic() + 240
    while not log.exists() or log.read_bytes().count(b"\n") < lines:
        assert time.monotonic() < end and all(process.poll() is None for process in running), "it has not come so far"
        time.sleep(0.005)
