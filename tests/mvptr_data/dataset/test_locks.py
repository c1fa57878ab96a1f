from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.dataset import locks
from mvptr_data.dataset.locks import STALE_AFTER, Slice, hold_lock, live_locks
from mvptr_data.errors import BusyError, InputError
from mvptr_data.storage import Store

HOLD = """
import sys, time
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.storage import Store
with hold_lock(Store.at(sys.argv[1]), "regions"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_holder_at_a_time_and_released_at_the_end(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    with hold_lock(store, "regions"):
        with pytest.raises(BusyError, match=str(os.getpid())), hold_lock(store, "regions"):
            pass
        with hold_lock(store, "text"):
            pass
    with hold_lock(store, "regions"):
        pass
    assert list((tmp_path / "locks").iterdir()) == []


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError), hold_lock(Store.at(tmp_path), "regions"):
            pass
        holder.kill()
        holder.wait()
        with hold_lock(Store.at(tmp_path), "regions"):
            assert json.loads((tmp_path / "locks/regions.json").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(("age", "taken"), [(0.0, False), (STALE_AFTER + 5, True)])
def test_the_lock_of_another_host_is_taken_over_when_it_is_stale(tmp_path: Path, age: float, taken: bool) -> None:
    store = Store.at(tmp_path)
    other = {"host": socket.gethostname() + "-other", "pid": 1, "start": "1", "token": "t", "beat": time.time() - age}
    store.write_json("locks/regions.json", other)
    if taken:
        with hold_lock(store, "regions"):
            pass
    else:
        with pytest.raises(BusyError, match="-other"), hold_lock(store, "regions"):
            pass


def test_an_unreadable_lock_protects_nobody(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    for text in (b"{", b"[]", b"{}"):
        store.write("locks/regions.json", text)
        with hold_lock(store, "regions"):
            pass


def test_of_many_that_start_at_once_one_holds(tmp_path: Path) -> None:
    held, done, barrier = [], threading.Event(), threading.Barrier(6)

    def start() -> None:
        barrier.wait()
        with contextlib.suppress(BusyError), hold_lock(Store.at(tmp_path), "regions"):
            held.append(threading.get_ident())
            done.wait(0.5)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1


def test_a_lock_that_was_taken_over_is_not_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.01)
    store = Store.at(tmp_path)
    with hold_lock(store, "regions"):
        store.write_json("locks/regions.json", {"token": "another's"})
        time.sleep(0.1)
    assert store.read_json("locks/regions.json") == {"token": "another's"}


def test_slices_of_one_cut_coexist_and_nothing_else_does(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    with hold_lock(store, "regions", Slice(0, 3)), hold_lock(store, "regions", Slice(2, 3)):
        for other in (Slice(0, 3), Slice(1, 2), Slice()):
            with pytest.raises(BusyError, match=r"array task 0/3"), hold_lock(store, "regions", other):
                pass
        assert sorted(str(lock.part) for lock in live_locks(store, "regions")) == ["0-of-3", "2-of-3"]
    with hold_lock(store, "regions"), pytest.raises(BusyError), hold_lock(store, "regions", Slice(1, 3)):
        pass
    assert live_locks(store, "regions") == []


@given(st.integers(1, 9), st.integers(0, 40))
def test_slices_share_out_every_shard_once(count: int, total: int) -> None:
    shards = [shard for index in range(count) for shard in Slice(index, count).shards(total)]
    assert sorted(shards) == list(range(total))


def test_a_slice_that_is_none_is_refused() -> None:
    for index, count in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(InputError, match="array task"):
            Slice(index, count)


def test_one_that_waits_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    store, order = Store.at(tmp_path), []

    def second() -> None:
        with hold_lock(store, "plan", wait=True):
            order.append("second")

    with hold_lock(store, "plan"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(20)
    assert order == ["first", "second"]
