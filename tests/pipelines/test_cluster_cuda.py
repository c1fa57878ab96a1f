"""`--cluster local-cuda` with the real dask-cuda and two GPUs that are not there: all but the computing on them.

dask-cuda and torch ask NVIDIA's management library which GPUs there are; the one made of `pretend_nvml.c` tells them. CUDA itself
does not start, which dask-cuda is told to bear, and the detector computes on the CPU.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import torch

PROJECT = Path(__file__).resolve().parents[2]
UUID = "GPU-0000000b-0000-0000-0000-000000000000"

pytestmark = [
    pytest.mark.skipif(find_spec("dask_cuda") is None, reason="dask-cuda is not installed"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has GPUs of its own"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc to build the pretended library with"),
]

#: Opens a cluster for each case of `cases`: the variables to set, and the number of workers. Prints each case's outcome.
SCRIPT = """
import json, os, signal, sys
from mvptr_data.errors import InputError
from pipelines.cluster import ClusterOptions, open_cluster

ASK = "(__import__('os').getpid(), __import__('os').environ['CUDA_VISIBLE_DEVICES'])"

def outcome(variables, workers):
    for name in ("CUDA_VISIBLE_DEVICES", "PRETEND_NO_AFFINITY"):
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        with open_cluster(ClusterOptions(cluster="local-cuda", workers=workers)) as running:
            running._client.wait_for_workers(len(running._client.cluster.worker_spec))
            found = running._client.run(eval, ASK).values()
            gpus = [gpu for _, gpu in found]
            if "A_WORKER_IS_KILLED" not in variables:
                return sorted(gpus)
            [victim, *_] = found
            os.kill(victim[0], signal.SIGKILL)
            while victim in (found := set(map(tuple, running._client.run(eval, ASK, on_error="ignore").values()))) \\
                    or len(found) < len(gpus):
                pass
            return sorted(gpu for _, gpu in found)
    except InputError as error:
        return str(error)

if __name__ == "__main__":
    for variables, workers in json.loads(sys.argv[1]):
        print(json.dumps(outcome(variables, workers)), flush=True)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("pretend_nvml.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", source], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA_", "LD_LIBRARY"))}
    return {
        **kept,
        "LD_LIBRARY_PATH": str(folder),
        "DASK_CUDA_TEST_SINGLE_GPU": "1",
        "PYTHONPATH": str(PROJECT),
        "OMP_NUM_THREADS": "1",
    }


def test_each_worker_has_a_gpu_of_those_that_the_user_may_use(environment: dict[str, str], tmp_path: Path) -> None:
    cases: list[tuple[dict[str, str], int | None]] = [
        ({}, None),
        ({"A_WORKER_IS_KILLED": "1"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "1, 0,"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "1,-1,0"}, None),
        ({"CUDA_VISIBLE_DEVICES": UUID}, None),
        ({"CUDA_VISIBLE_DEVICES": "0"}, 2),
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
        ({"CUDA_VISIBLE_DEVICES": UUID[:12]}, None),
        ({"PRETEND_NO_AFFINITY": "1"}, 1),
        ({"PRETEND_NO_AFFINITY": "1", "CUDA_VISIBLE_DEVICES": UUID}, None),
    ]
    (tmp_path / "clusters.py").write_text(SCRIPT)
    command = [sys.executable, "clusters.py", json.dumps(cases)]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert found[:5] == [["0,1", "1,0"], ["0,1", "1,0"], ["1"], ["1"], [UUID]], ended.stderr
    assert "finds 1 GPUs for 2 workers" in found[5] and "finds 0 GPUs" in found[6]
    assert f"cannot start workers on the GPUs {UUID[:12]} (" in found[7]
    assert found[8] == ["0"] and f"cannot start workers on the GPUs {UUID} (" in found[9]
    assert "Warning" not in ended.stderr and [path.name for path in tmp_path.iterdir()] == ["clusters.py"]


#: The compact detector, which says where it computes.
DETECTOR = """
from mvptr_data.detectors import load_detector

def make():
    detector = load_detector("compact")
    known = {**detector.configuration(), "device": "cpu"}
    detector.configuration = lambda: known
    return detector
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path, world) -> Start:  # type: ignore[no-untyped-def]
    """`start(*options)`: extract the world's images on both GPUs, in a process group of its own, as at a terminal."""

    def begin(*options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pipelines.cli", "extract-regions", str(world.images), "out"]
        return subprocess.Popen(
            [*command, "--cluster", "local-cuda", "--samples-per-shard", "4", *options],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    return begin


def workers_of(client: subprocess.Popen[str]) -> list[psutil.Process]:
    """Its two workers, as soon as both have begun."""
    while client.poll() is None:
        found = [child for child in psutil.Process(client.pid).children() if "spawn_main" in " ".join(child.cmdline())]
        if len(found) == 2:
            return found
        time.sleep(0.05)
    pytest.fail(f"the run ended by itself: {client.communicate()[1]}")


def test_a_killed_worker_changes_no_byte(start: Start, published: Path, tmp_path: Path) -> None:
    (tmp_path / "outspoken.py").write_text(DETECTOR)
    client = start("--detector", "outspoken:make")
    workers_of(client)[0].kill()
    _, said = client.communicate(timeout=240)
    assert client.returncode == 0 and "Traceback" not in said, said
    assert "the detector computes on the CPU" in said
    for name in ("regions/00000.tar", "regions/00001.tar", "regions/00002.tar"):
        assert (tmp_path / "out" / name).read_bytes() == (published / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "outspoken.py"]


def test_ctrl_c_ends_it_in_one_line(start: Start, tmp_path: Path) -> None:
    client = start()
    workers = workers_of(client)
    os.killpg(client.pid, signal.SIGINT)
    _, said = client.communicate(timeout=240)
    assert client.returncode == 130 and said.splitlines()[-1] == "Stopped. The same command goes on from here.", said
    assert "Traceback" not in said
    assert not psutil.wait_procs(workers, timeout=30)[1]
    assert not list((tmp_path / "out").glob("locks/*")) and not list((tmp_path / "out").rglob("*.tmp"))
