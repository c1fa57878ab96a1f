from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.overlap import in_batches, map_ahead, prefetch


@given(st.lists(st.integers(), max_size=50), st.integers(1, 5))
def test_prefetch_changes_nothing(items: list[int], size: int) -> None:
    assert list(prefetch(items, size)) == items


@given(st.lists(st.integers(), max_size=50), st.integers(1, 7))
def test_batches_are_the_items_in_order(items: list[int], size: int) -> None:
    batches = list(in_batches(items, size))
    assert [item for batch in batches for item in batch] == items
    assert all(len(batch) == size for batch in batches[:-1]) and all(batches)


def test_an_exception_comes_in_its_place() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("third")

    items = prefetch(broken(), 2)
    assert next(items) == 1
    with pytest.raises(ValueError, match="third"):
        next(items)


def test_the_thread_is_bounded_and_ends_with_its_consumer() -> None:
    made: list[int] = []

    def count() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "prefetch"}

    before = threads()
    items = prefetch(count(), 3)
    assert next(items) == 0
    time.sleep(0.2)
    assert len(made) <= 6  # one taken, three waiting, one in hand, one being made
    items.close()  # type: ignore[attr-defined]
    assert threads() <= before


@given(st.lists(st.integers(), max_size=60), st.integers(1, 4), st.integers(0, 9))
def test_threads_keep_the_order(items: list[int], threads: int, ahead: int) -> None:
    assert list(map_ahead(lambda item: item * 2, items, threads=threads, ahead=ahead)) == [item * 2 for item in items]


def test_threads_work_at_once_and_no_further_ahead_than_allowed() -> None:
    barrier = threading.Barrier(3, timeout=20)
    started: list[int] = []

    def meet(number: int) -> int:
        started.append(number)
        if number < 3:
            barrier.wait()
        return number

    numbers = map_ahead(meet, range(100), threads=3, ahead=5)
    assert next(numbers) == 0
    time.sleep(0.1)
    assert len(started) <= 6
    numbers.close()  # type: ignore[attr-defined]
