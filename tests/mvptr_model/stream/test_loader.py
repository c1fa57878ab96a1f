"""The loader: every rank's batches in order, for any number of workers; exact resume; faults; nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from benchmarks.synthetic import NamesOnly, write_data_set
from mvptr_data.errors import ConfigurationMismatchError, DamagedFileError, FailureBudgetError, InputError
from mvptr_data.storage import Store, digest
from mvptr_model.stream.batches import StreamSpec
from mvptr_model.stream.loader import StreamLoader
from mvptr_model.stream.settings import OrderSettings
from mvptr_model.stream.workers import LostWorkerError

SAMPLES, PER_SHARD = 150, 20
ORDER = OrderSettings(global_batch=12, canonical_streams=4, block_shards=2, seed=11)
Name = tuple[str, int] | None
#: Seconds that a process of a test may take.
LONGEST = 240


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Samples of one region; every tenth shows the picture of the one before it."""
    root = str(tmp_path_factory.mktemp("synthetic") / "data")
    twin = lambda sample: sample - 1 if sample % 10 == 9 else sample  # noqa: E731
    write_data_set(root, SAMPLES, regions=1, per_shard=PER_SHARD, captions=lambda n: 1 + n % 3, image=twin)
    return root


def spec(root: str, **changes: object) -> StreamSpec:
    return StreamSpec(**{"roots": (root,), "order": ORDER, "collate": NamesOnly(), **changes})  # type: ignore[arg-type]


def names(loader: StreamLoader, batches: int = 10**9) -> list[Name]:
    found: list[Name] = []
    for _, batch in zip(range(batches), loader, strict=False):
        found += batch.names
    return found


@pytest.fixture(scope="module")
def undisturbed(root: str) -> list[Name]:
    """Two epochs, one rank."""
    loader = StreamLoader(spec(root))
    return names(loader) + names(loader)


def test_an_epoch_is_every_sample_once_and_the_next_another_order(undisturbed: list[Name]) -> None:
    first, second = undisturbed[: len(undisturbed) // 2], undisturbed[len(undisturbed) // 2 :]
    keys = [Counter(name[0] for name in epoch if name) for epoch in (first, second)]
    assert [max(counts.values()) for counts in keys] == [1, 1]
    assert all(len(counts) >= SAMPLES - ORDER.global_batch for counts in keys)
    assert first != second


@pytest.mark.parametrize("world", [1, 2, 3, 5, 12])
def test_the_ranks_parts_are_the_batch(root: str, undisturbed: list[Name], world: int) -> None:
    loaders = [iter(StreamLoader(spec(root, rank=rank, world=world))) for rank in range(world)]
    found = [name for parts in zip(*loaders, strict=True) for part in parts for name in part.names]
    assert found == undisturbed[: len(found)] and 2 * len(found) == len(undisturbed)


@pytest.mark.parametrize(("workers", "context"), [(1, "fork"), (2, "spawn"), (3, "forkserver")])
def test_worker_processes_give_the_same(root: str, undisturbed: list[Name], workers: int, context: str) -> None:
    loader = StreamLoader(spec(root, accumulate=2), workers=workers, context=context)
    assert len(loader) == 24
    assert names(loader, 7) == undisturbed[:42]
    assert names(loader) == undisturbed[36 : len(undisturbed) // 2]  # the begun batch again
    assert not multiprocessing.active_children()


def test_stopped_anywhere_and_gone_on_elsewhere(root: str, undisturbed: list[Name]) -> None:
    """After random numbers of batches, with other numbers of ranks and parts: the samples of an undisturbed run."""
    random, state = Random(5), None
    found: list[Name] = []
    while len(found) < len(undisturbed):
        world, accumulate = random.choice([(1, 1), (2, 1), (3, 2), (4, 3), (8, 1)])
        loaders = [StreamLoader(spec(root, rank=rank, world=world, accumulate=accumulate)) for rank in range(world)]
        if state is not None:
            for loader in loaders:
                loader.load_state_dict(state)
        batches = random.randrange(1, 6)
        parts = [iter(loader) for loader in loaders]
        for _ in range(min(batches, len(loaders[0]) // accumulate)):
            taken = [[next(part).names for _ in range(accumulate)] for part in parts]
            found += [name for rank in taken for part in rank for name in part]
        states = [loader.state_dict() for loader in loaders]
        assert all(other == states[0] for other in states)
        state = states[0]
        for part in parts:
            part.close()  # type: ignore[attr-defined]
    assert found == undisturbed


def test_the_state_of_other_data_is_refused(root: str, tmp_path: Path) -> None:
    write_data_set(str(tmp_path), 60, regions=1)
    saved = StreamLoader(spec(root)).state_dict()
    with pytest.raises(ConfigurationMismatchError, match="order_digest"):
        StreamLoader(spec(str(tmp_path))).load_state_dict(saved)


def test_an_unsound_sample_is_raised_or_skipped_within_a_budget(tmp_path: Path, undisturbed: list[Name]) -> None:
    root = str(tmp_path / "data")
    write_data_set(
        root, SAMPLES, regions=1, per_shard=PER_SHARD, captions=lambda n: 1 + n % 3, image=lambda n: n - (n % 10 == 9)
    )
    tar = tmp_path / "data/regions/00002.tar"
    tar.write_bytes(tar.read_bytes().replace(b"'<f2'", b"'<f4'", 3))  # three samples' headers
    for workers in (0, 2):
        with pytest.raises(
            DamagedFileError, match=r"shard 2 of .* sample '0000000\d\d' \(position \d+, features at byte"
        ):
            names(StreamLoader(spec(root), workers=workers))
        loader = StreamLoader(spec(root, on_fault="skip"), workers=workers, max_faults=3)
        found = names(loader)
        lost = [place for place, (mine, theirs) in enumerate(zip(found, undisturbed, strict=False)) if mine != theirs]
        assert len(lost) == len(loader.faults) == 3 and all(found[place] is None for place in lost)
        assert {fault.batch for fault in loader.faults} == {place // 12 for place in lost}
        assert all("features of shard 2" in fault.message for fault in loader.faults)
    with pytest.raises(FailureBudgetError, match="3 samples could not be read, 2 may be skipped"):
        names(StreamLoader(spec(root, on_fault="skip"), max_faults=2))


def test_mixed_data_sets_share_a_vocabulary_and_no_batch_shows_a_picture_twice(root: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    write_data_set(
        other, 80, regions=1, per_shard=PER_SHARD, image=lambda sample: sample * 2
    )  # pictures of `root` as well
    order = OrderSettings(global_batch=12, canonical_streams=4, block_shards=2, weights=(0.5, 0.5))
    loader = StreamLoader(spec(root, roots=(root, other), order=order, collate=NamesOnly(images=True)))
    shown = [[name[0] for name in batch.names if name] for batch in loader]
    assert all(len(set(images)) == len(images) == 12 for images in shown)
    assert max(Counter(image for images in shown for image in images).values()) > 2  # of both sets, in several passes
    manifest = Store.at(other).read_json("manifest.json")
    del manifest["digest"]
    manifest["phrase_vocab"]["digest"] = "0" * 64
    Store.at(other).write_json("manifest.json", manifest | {"digest": digest(manifest)})
    with pytest.raises(ConfigurationMismatchError, match="one vocabulary for all"):
        StreamLoader(spec(root, roots=(root, other), order=order))


def test_what_cannot_be_shared_out_is_refused(root: str) -> None:
    for changes, message in (
        ({"rank": 2, "world": 2}, "rank 2 of 2"),
        ({"world": 7, "accumulate": 2}, "in 2 parts for each of 7 ranks"),
        ({"on_fault": "ignore"}, "on_fault is 'ignore'"),
    ):
        with pytest.raises(InputError, match=message):
            spec(root, **changes)
    with pytest.raises(InputError, match="workers is -1"):
        StreamLoader(spec(root), workers=-1)


def test_batches_are_made_ahead_within_the_bound_and_the_thread_ends(root: str) -> None:
    loader = StreamLoader(spec(root), prefetch_bytes=2 * 1200)
    batches = iter(loader)
    next(batches)
    assert "prefetch" in {thread.name for thread in threading.enumerate()}
    batches.close()  # type: ignore[attr-defined]
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}


WORKERS = """
import os, signal, sys, time
from torch.utils.data import get_worker_info
from benchmarks.synthetic import NamesOnly
from mvptr_model.stream.batches import StreamSpec
from mvptr_model.stream.loader import StreamLoader
from mvptr_model.stream.settings import OrderSettings

class Slow(NamesOnly):
    # The second worker never comes to an end.
    def assemble(self, parts):
        if (worker := get_worker_info()) and worker.id == 1:
            time.sleep(6000)
        return super().assemble(parts)

def batches(collate):
    order = OrderSettings(global_batch=12, canonical_streams=4)
    spec = StreamSpec(roots=(sys.argv[1],), order=order, collate=collate)
    return StreamLoader(spec, workers=2, prefetch_bytes=1)

if __name__ == "__main__":
"""
#: The first batch is made before there are workers.
INTERRUPTED = """
    for number, _ in enumerate(batches(Slow())):
        print("batch", flush=True)
        time.sleep(6000 * number)
"""
TOLD = """
    heard = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda name, _: heard.append(name))
    for number, _ in enumerate(batches(NamesOnly()), start=1):
        if number == 2:
            os.killpg(0, signal.SIGTERM)
            os.killpg(0, signal.SIGINT)
    print(number, len(heard))
"""


def started(root: str, folder: Path, body: str) -> subprocess.Popen[bytes]:
    """A process, in a session of its own, with a loader that has two workers."""
    script = folder / "run.py"
    script.write_text(WORKERS + body)
    return subprocess.Popen(
        [sys.executable, str(script), root],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3]), "TMPDIR": str(folder)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's background ignores it
    )


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_leaves_no_process_and_no_file(root: str, tmp_path: Path, sent: signal.Signals) -> None:
    running = started(root, tmp_path, INTERRUPTED)
    assert running.stdout is not None
    assert [running.stdout.readline() for _ in range(2)] == [b"batch\n"] * 2
    processes = group(running.pid)
    assert len(processes) >= 5  # it, two workers, the server that forked them, the resource tracker
    running.send_signal(sent)
    running.wait(timeout=LONGEST)
    until = time.monotonic() + LONGEST
    while group(running.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not group(running.pid)
    shared = [path.name for path in Path("/dev/shm").iterdir()]
    assert not [name for name in shared for process in processes if f"_{process}_" in name]
    assert [
        path.name for path in tmp_path.iterdir() if path.name != "run.py" and not path.name.startswith("pymp-")
    ] == []


def test_signals_to_all_processes_of_a_run_end_no_worker(root: str, tmp_path: Path) -> None:
    running = started(root, tmp_path, TOLD)
    said, _ = running.communicate(timeout=LONGEST)
    assert said.split() == [b"12", b"2"]


def test_a_worker_that_is_killed_ends_the_run_with_its_name(root: str) -> None:
    batches = iter(StreamLoader(spec(root), workers=2, prefetch_bytes=1))
    next(batches), next(batches)
    lost = multiprocessing.active_children()[0]
    lost.kill()
    with pytest.raises(LostWorkerError, match=f"worker process {lost.pid}, .* workers=0"):
        list(batches)
    assert not multiprocessing.active_children()


def group(leader: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(session) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found
