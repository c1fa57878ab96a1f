from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.dataset import lock_files, locks
from mvptr_data.dataset.lock_files import STALE_AFTER, WHOLE, LiveLock, Slice, live_locks
from mvptr_data.dataset.locks import hold_lock, keep_out
from mvptr_data.errors import BusyError, InputError, OutputError
from mvptr_data.storage import Store

HOLD = """
import sys, time
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.storage import Store
with hold_lock(Store.at(sys.argv[1]), "regions"):
    print("held", flush=True)
    time.sleep(60)
"""


SLEEP = """
import sys, time
from mvptr_data.dataset import lock_files, locks
from mvptr_data.errors import BusyError
from mvptr_data.storage import Store
lock_files.STALE_AFTER = 1.0
locks.HEARTBEAT_SECONDS = 0.1
with locks.hold_lock(Store.at(sys.argv[1]), "regions") as held:
    held.check()
    print("held", flush=True)
    sys.stdin.readline()
    try:
        held.check()
    except BusyError as error:
        print(error, flush=True)
    else:
        print("still held", flush=True)
"""


def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def raises(function: Callable[[], object], error: type[Exception]) -> bool:
    try:
        function()
    except error:
        return True
    return False


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


@pytest.mark.parametrize(("age", "taken"), [(0.0, False), (STALE_AFTER + 5, True), (-STALE_AFTER - 5, True)])
def test_the_lock_of_another_host_is_taken_over_when_it_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, taken: bool
) -> None:
    monkeypatch.setattr(locks, "WATCH_SECONDS", 0.1)
    store = Store.at(tmp_path)
    other = {"host": socket.gethostname() + "-other", "pid": 1, "start": "1", "token": "t", "beat": time.time() - age}
    store.write_json("locks/regions.json", other)
    if taken:
        with hold_lock(store, "regions"):
            pass
    else:
        with pytest.raises(BusyError, match="-other"), hold_lock(store, "regions"):
            pass


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
@pytest.mark.parametrize("keep", [False, True], ids=["hold_lock", "keep_out"])
def test_a_holder_whose_clock_goes_wrong_is_respected_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: float, keep: bool
) -> None:
    """Two hosts write to one disk; each beat of the other is an hour old, or of an hour that is yet to come."""
    monkeypatch.setattr(locks, "WATCH_SECONDS", 1.0)
    store, ended = Store.at(tmp_path), threading.Event()
    other = {"host": "other", "boot": "another", "namespace": "n", "pid": 1, "start": "1", "token": "t"}

    def beat() -> None:
        while not ended.wait(0.1):
            store.write_json("locks/regions.0-of-2.json", other | {"beat": time.time() + ahead})

    holder = threading.Thread(target=beat)
    holder.start()
    until(lambda: store.exists("locks/regions.0-of-2.json"))
    try:
        block = keep_out(store, ["regions"]) if keep else hold_lock(store, "regions")
        with pytest.raises(BusyError, match="process 1 on other"), block:
            pass
        assert store.read_json("locks/regions.0-of-2.json")["token"] == "t"
        with hold_lock(store, "regions", Slice(1, 2)):  # slices of one cut share nothing, so there is nothing to watch
            pass
    finally:
        ended.set()
        holder.join()
    with hold_lock(store, "regions"):  # it has ended without a word
        assert [lock.pid for lock in live_locks(store, "regions")] == [os.getpid()]


@pytest.mark.parametrize("beat", [10**400, -(10**400), 1e300, None, "now"])
def test_a_beat_that_is_no_time_protects_nobody(tmp_path: Path, beat: object) -> None:
    store = Store.at(tmp_path)
    store.write_json("locks/regions.json", {"host": "other", "pid": 1, "token": "t", "beat": beat, "since": beat})
    assert live_locks(store, "regions") == []
    with hold_lock(store, "regions"):
        pass


def test_an_unreadable_lock_protects_nobody(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    for text in (b"{", b"[]", b"{}"):
        store.write("locks/regions.json", text)
        with hold_lock(store, "regions"):
            pass


def test_of_many_that_start_at_once_one_holds(tmp_path: Path) -> None:
    held, refused, done, barrier = [], [], threading.Event(), threading.Barrier(6)

    def start() -> None:
        barrier.wait()
        try:
            with hold_lock(Store.at(tmp_path), "regions"):
                held.append(threading.get_ident())
                done.wait(20)
        except BusyError as error:
            refused.append(error)
            if len(refused) == 5:
                done.set()

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)


def test_a_lock_that_was_taken_over_is_not_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.01)
    store = Store.at(tmp_path)
    with hold_lock(store, "regions") as held:
        held.check()
        with locks._alone(store):  # as a taker does: a beat that has read its own token writes before or not at all
            store.write_json("locks/regions.json", {"token": "another's"})
        until(lambda: raises(held.check, BusyError))
        with pytest.raises(BusyError, match="taken over while this process slept"):
            held.check()
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


@contextlib.contextmanager
def other_process(script: str, folder: Path, *before: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the regions of `folder`, begun through the command `before`; killed at the end."""
    command = [*before, sys.executable, "-c", script, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_process_of_another_pid_namespace_is_not_taken_for_dead(tmp_path: Path) -> None:
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a process have a PID namespace of its own")
    store = Store.at(tmp_path)
    with other_process(HOLD, tmp_path, *apart):
        holder = store.read_json("locks/regions.json")
        assert holder["host"] == socket.gethostname() and holder["pid"] < 10
        with pytest.raises(BusyError), hold_lock(store, "regions"):
            pass


@pytest.mark.parametrize(
    ("elsewhere", "taken"),
    [({}, True), ({"namespace": "pid:[1]"}, False), ({"boot": "another"}, False), ({"host": "another"}, False)],
)
def test_a_process_that_is_gone_is_known_to_be_dead_only_where_it_ran(
    tmp_path: Path, elsewhere: dict[str, str], taken: bool
) -> None:
    store = Store.at(tmp_path)
    with hold_lock(store, "regions"):
        mine = store.read_json("locks/regions.json")
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    store.write_json("locks/regions.json", {**mine, "token": "t", "pid": gone.pid, **elsewhere})
    expected = contextlib.nullcontext() if taken else pytest.raises(BusyError)
    with expected, hold_lock(store, "regions"):
        pass


def start_at_once(monkeypatch: pytest.MonkeyPatch, store: Store, parts: list[Slice]) -> list[int]:
    """Who holds the lock when all look before any writes, as over a network: numbers of `parts`."""
    held: list[int] = []
    decided: list[int] = []
    barrier, looks = threading.Barrier(len(parts)), threading.local()
    look, done = locks.live_locks, threading.Event()

    def slow(store: Store, name: str) -> list[LiveLock]:
        found = look(store, name)
        if not hasattr(looks, "first"):
            looks.first = True
            barrier.wait()
        return found

    monkeypatch.setattr(locks, "live_locks", slow)

    def run(number: int) -> None:
        with contextlib.suppress(BusyError), contextlib.ExitStack() as stack:
            try:
                lock = stack.enter_context(hold_lock(store, "regions", parts[number]))
                held.append(number)
            finally:
                decided.append(number)
                if len(decided) == len(parts):
                    done.set()
            done.wait(120)  # nobody lets go before each knows whether it has the lock
            lock.check()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return held


@pytest.mark.parametrize(
    ("parts", "holders"),
    [([WHOLE, WHOLE], 1), ([WHOLE, Slice(1, 3)], 1), ([Slice(0, 2), Slice(2, 3)], 1), ([Slice(0, 3), Slice(2, 3)], 2)],
)
def test_of_two_that_look_before_either_writes_on_an_object_store_one_holds(
    monkeypatch: pytest.MonkeyPatch, parts: list[Slice], holders: int
) -> None:
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 1.0)
    store = Store.at(f"memory://locks-{secrets.token_hex(4)}")
    assert len(start_at_once(monkeypatch, store, parts)) == holders
    assert store.names("locks") == []


def test_on_an_object_store_one_that_waits_gets_the_lock_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.5)
    store, order = Store.at(f"memory://locks-{secrets.token_hex(4)}"), []

    def one(number: int) -> None:
        with hold_lock(store, "plan", wait=True):
            order.append(number)
            time.sleep(0.05)
            order.append(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(order[::2]) == [0, 1, 2, 3] and order[::2] == order[1::2]


def states(pid: int) -> set[str]:
    """What the threads of a process do, in one letter each; T: stopped."""
    return {stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")}


@pytest.mark.parametrize(
    ("taker", "stays"), [(WHOLE, True), (WHOLE, False), (Slice(1, 4), True), (Slice(1, 4), False), (None, False)]
)
def test_a_holder_that_slept_learns_that_it_was_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taker: Slice | None, stays: bool
) -> None:
    """By another holder of the same lock or of a slice, at work or gone again; without one (None) it goes on."""
    monkeypatch.setattr(lock_files, "STALE_AFTER", 1.0)
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.1)
    store = Store.at(tmp_path)
    with other_process(SLEEP, tmp_path) as holder, contextlib.ExitStack() as stack:
        with locks._alone(store):  # not within a beat, or nobody could look at the lock while it sleeps
            holder.send_signal(signal.SIGSTOP)
            until(lambda: states(holder.pid) == {"T"})
        time.sleep(1.2)
        if taker is not None:
            taken = stack.enter_context(hold_lock(store, "regions", taker))
            if not stays:
                stack.close()
        holder.send_signal(signal.SIGCONT)
        said = holder.communicate("\n", timeout=60)[0]
        if stays:
            taken.renew()  # the last beat may be late
        assert ("taken over while this process slept" in said) == (taker is not None), said
        assert (said == "still held\n") == (taker is None)
        assert bool(live_locks(store, "regions")) == (taker is not None and stays)


def test_a_lock_removed_by_hand_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.01)
    store = Store.at(tmp_path)
    with hold_lock(store, "regions") as held:
        store.remove("locks/regions.json")
        until(lambda: store.exists("locks/regions.json"))
        held.check()


def test_a_beat_never_undoes_what_another_does_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A beat that has read its own token may not write when another has taken the lock since: both are one step."""
    store = Store.at(tmp_path)
    inside, go = threading.Event(), threading.Event()
    read = locks.read_lock

    def slow(store: Store, path: str) -> dict[str, object]:
        found = read(store, path)
        if threading.current_thread().name == "beat":
            inside.set()
            go.wait(10)
        return found

    with hold_lock(store, "regions") as held:
        monkeypatch.setattr(locks, "read_lock", slow)
        beat = threading.Thread(target=held.renew, name="beat")
        beat.start()
        assert inside.wait(10)
        other = threading.Thread(target=held.release)  # what a taker does first: look, alone
        other.start()
        other.join(0.3)
        waits = other.is_alive()
        go.set()
        beat.join()
        other.join()
    assert waits and store.names("locks") == []


def test_nobody_takes_a_lock_while_all_are_kept_out_and_a_live_holder_is_respected(tmp_path: Path) -> None:
    store, order = Store.at(tmp_path), []
    with hold_lock(store, "text"), pytest.raises(BusyError), keep_out(store, ["regions", "text"]):
        pass

    def second() -> None:
        with hold_lock(store, "regions"):
            order.append("second")

    with keep_out(store, ["regions", "text"]):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(20)
    assert order == ["first", "second"]
    with pytest.raises(OutputError, match="no room"), keep_out(Store.at("memory://full"), ["regions"]):
        pass
