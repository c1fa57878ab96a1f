from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvptr_data.dataset.fields import TEXT
from mvptr_data.dataset.records import encode_text
from mvptr_data.dataset.shards import shard_writer
from mvptr_data.storage import Store
from pipelines.runs.progress import PendingShards, read_receipts, shards_with_receipt

DIGEST = "d" * 64


def write(store: Store, shard: int, digest: str = DIGEST) -> None:
    with shard_writer(store, TEXT, shard, configuration_digest=digest) as (writer, _):
        writer.add("a", encode_text(None, []), {"captions": 0, "phrases": 0})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(states=st.lists(st.sampled_from(["missing", "sound", "short", "other", "broken"]), min_size=1, max_size=12))
def test_each_unfinished_shard_comes_once_and_each_finished_one_is_told(
    states: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = Store.at(tmp_path_factory.mktemp("progress"))
    for shard, state in enumerate(states):
        if state != "missing":
            write(store, shard, "e" * 64 if state == "other" else DIGEST)
        if state == "short":
            store.write(f"text/{shard:05d}.tar", b"")
        if state == "broken":
            store.write(f"text/{shard:05d}.json", b"{")
    kept: list[int] = []
    pending = PendingShards(store, "text", range(len(states)), DIGEST, lambda receipt: kept.append(receipt.shard))
    todo = list(pending)
    missing = [shard for shard, state in enumerate(states) if state == "missing"]
    assert pending.missing == missing == todo[: len(missing)]
    assert sorted(todo) == [shard for shard, state in enumerate(states) if state != "sound"]
    assert sorted(kept) == [shard for shard, state in enumerate(states) if state == "sound"]
    assert shards_with_receipt(store, "text") == {s for s, state in enumerate(states) if state != "missing"}
    readable = [state not in ("missing", "broken") for state in states]
    assert [receipt is not None for _, receipt in read_receipts(store, "text", range(len(states)))] == readable


def test_an_error_of_the_listener_is_raised_and_closing_ends_the_thread(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    for shard in range(3):
        write(store, shard)

    def refuse(_: object) -> None:
        raise RuntimeError("enough")

    pending = PendingShards(store, "text", range(3), DIGEST, refuse)
    with pytest.raises(RuntimeError, match="enough"):
        list(pending)
    before = threading.active_count()
    PendingShards(store, "text", range(3), DIGEST, lambda _: None).close()
    assert threading.active_count() <= before
