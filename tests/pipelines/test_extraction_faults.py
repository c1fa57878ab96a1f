"""What a run survives, with real processes: images that kill, memory that does not suffice, a full disk, two runs at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from mvptr_data.dataset.receipts import read_receipt
from mvptr_data.storage import Store

TROUBLED = Path(__file__).with_name("troubled.py")
PER_SHARD = 8
PICTURES = 20

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mvptr_data.abstract_scenes import write_world

    folder = tmp_path_factory.mktemp("pictures")
    write_world(folder, count=PICTURES, seed=5)
    return folder / "images"


@pytest.fixture(scope="module")
def undisturbed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures' regions by a run without trouble."""
    from pipelines.cluster import ClusterOptions
    from pipelines.extract_regions import extract_regions

    out = tmp_path_factory.mktemp("undisturbed") / "out"
    extract_regions(
        str(pictures), str(out), samples_per_shard=PER_SHARD, cluster=ClusterOptions(cluster="inline"), quiet=True
    )
    return out


@pytest.fixture
def run(pictures: Path, tmp_path: Path) -> Run:
    """`run(*options)`: extract a copy of the pictures with the troubled detector, as a user would, in a folder of its own."""
    shutil.copytree(pictures, tmp_path / "images")
    shutil.copy(TROUBLED, tmp_path / "troubled.py")
    command = [sys.executable, "-m", "pipelines.cli", "extract-regions", "images", "out", "--detector", "troubled:make"]
    path = str(Path(__file__).resolve().parents[2])

    def start(*options: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, *command, "--samples-per-shard", str(PER_SHARD), *options],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return start


def widen(picture: Path, width: int) -> None:
    with Image.open(picture) as image:
        image.resize((width, 256)).save(picture)


def fates(out: Path) -> dict[str, str]:
    """What became of each key, from the rows that receipts name."""
    store = Store.at(out)
    receipts = [read_receipt(store, "regions", shard) for shard in range(-(-PICTURES // PER_SHARD))]
    rows = [row for receipt in receipts if receipt for row in pq.read_table(out / receipt.rows.name).to_pylist()]
    return {row["key"]: row["error_class"] or "ok" for row in rows}


def tars(out: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((out / "regions").glob("*.tar"))]


@pytest.mark.slow  # each of the many deaths costs a worker's start
def test_images_that_kill_their_worker_are_found_and_the_rest_is_done(
    run: Run, tmp_path: Path, undisturbed: Path
) -> None:
    victims = sorted((tmp_path / "images").glob("*.jpg"))[10:13:2]
    for victim in victims:
        widen(victim, 250)
    ended = run("--workers", "2")
    assert ended.returncode == 0, ended.stderr
    assert "inputs that end their process, by position: 2, 4" in ended.stderr and "Traceback" not in ended.stderr
    found = fates(tmp_path / "out")
    assert {key: fate for key, fate in found.items() if fate != "ok"} == dict.fromkeys(
        (victim.stem for victim in victims), "worker_killed"
    )
    assert len(found) == PICTURES
    assert [tars(tmp_path / "out")[shard] for shard in (0, 2)] == [tars(undisturbed)[shard] for shard in (0, 2)]
    assert not list((tmp_path / "out/regions").glob(".*"))


def test_without_a_cluster_an_image_that_kills_ends_two_runs_and_not_the_third(
    run: Run, tmp_path: Path, undisturbed: Path
) -> None:
    victim = sorted((tmp_path / "images").glob("*.jpg"))[PICTURES - 1]
    widen(victim, 250)
    for _ in range(2):
        assert run("--cluster", "inline").returncode == -signal.SIGKILL
    ended = run("--cluster", "inline")
    assert ended.returncode == 0, ended.stderr
    assert "ended this process 2 times" in ended.stderr
    assert fates(tmp_path / "out")[victim.stem] == "worker_killed"
    assert list(fates(tmp_path / "out").values()).count("ok") == PICTURES - 1
    assert tars(tmp_path / "out")[:2] == tars(undisturbed)[:2]
    assert not list((tmp_path / "out/locks").rglob("*.json"))


def test_too_little_memory_halves_the_batch_and_the_receipt_says_so(
    run: Run, tmp_path: Path, undisturbed: Path
) -> None:
    victim = sorted((tmp_path / "images").glob("*.jpg"))[3]
    widen(victim, 251)
    ended = run("--cluster", "inline", "--option", "most_images=3")
    assert ended.returncode == 0, ended.stderr
    found = fates(tmp_path / "out")
    assert found.pop(victim.stem) == "out_of_memory" and set(found.values()) == {"ok"}
    assert tars(tmp_path / "out")[1:] == tars(undisturbed)[1:]
    receipt = read_receipt(Store.at(tmp_path / "out"), "regions", 2)
    assert receipt is not None and receipt.environment["memory"].startswith("out of memory with 8 images at once -> ")


def test_a_full_disk_ends_the_run_in_one_line_and_tears_nothing(run: Run, tmp_path: Path, undisturbed: Path) -> None:
    """A real file system of 200 kB, mounted for this process alone where the kernel allows that."""
    (tmp_path / "out").mkdir()
    mount = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    script = 'mount -t tmpfs -o size=200k tmpfs "$0" && exec "$@"'
    probe = subprocess.run([*mount, script, str(tmp_path / "out"), "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no file system can be mounted here: {probe.stderr.strip()}")
    keep = 'mount -t tmpfs -o size=200k tmpfs "$0" && { "$@"; code=$?; cp -r "$0" "$0.kept"; exit $code; }'
    ended = run("--cluster", "inline", prefix=(*mount, keep, str(tmp_path / "out")))
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("Error: cannot write to ")
    assert "No space left on device" in ended.stderr
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out.kept").rename(tmp_path / "out")
    assert not list((tmp_path / "out/regions").glob(".*")) and len(tars(tmp_path / "out")) < 3
    shutil.rmtree(tmp_path / "out/locks", ignore_errors=True)
    again = run("--cluster", "inline")
    assert again.returncode == 0, again.stderr
    assert tars(tmp_path / "out") == tars(undisturbed)


def test_a_second_run_on_one_output_refuses_and_a_killed_one_is_taken_over(run: Run, tmp_path: Path) -> None:
    from mvptr_data.dataset.locks import hold_lock

    with hold_lock(Store.at(tmp_path / "out"), "regions"):
        ended = run("--cluster", "inline")
    assert ended.returncode == 1 and f"is being written by process {os.getpid()}" in ended.stderr
    lock = {"host": "gone", "pid": 1, "start": "1", "token": "t", "beat": time.time() - 3600}
    (tmp_path / "out/locks").mkdir(parents=True, exist_ok=True)
    (tmp_path / "out/locks/regions.json").write_text(json.dumps(lock))
    assert run("--cluster", "inline").returncode == 0


def test_array_tasks_at_once_give_the_bytes_of_one_run(run: Run, tmp_path: Path, undisturbed: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(lambda task: run("--cluster", "inline", "--array-task", f"{task}/3"), range(3)))
    assert [one.returncode for one in ended] == [0, 0, 0], [one.stderr for one in ended]
    assert tars(tmp_path / "out") == tars(undisturbed)
    assert [one.stderr.count("planned 20 images") for one in ended].count(1) == 1
    whole = run("--cluster", "inline")
    assert "3 of 3 shards have receipts and are kept" in whole.stderr
