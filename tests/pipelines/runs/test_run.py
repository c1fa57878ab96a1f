from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from mvptr_data.sources.images import list_images
from mvptr_data.storage import Store
from pipelines.cluster import ClusterOptions
from pipelines.console import reporting
from pipelines.runs.run import RunOptions, Workers, regions_run, stored_or_new_plan

#: What a worker is at when the run is stopped.
WRITE = """
import pathlib, time
out = pathlib.Path({out!r})
(out / "begun").touch()
time.sleep(1)
(out / "regions").mkdir(exist_ok=True)
(out / "regions/.00001.tar.1-ff.tmp").write_bytes(b"half")
"""


def test_a_run_ends_its_workers_before_it_cleans_up_and_lets_others_begin(world, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    store = Store.at(tmp_path / "out")
    options = RunOptions(cluster=ClusterOptions(cluster="local", workers=1), quiet=True)
    refs, source = list_images(str(world.images)), {"images": str(world.images)}
    plan = stored_or_new_plan(store, refs, "images", source=source, samples_per_shard=4)
    with reporting(quiet=True) as reporter, ExitStack() as stack:
        workers = Workers(stack, options.cluster, None, reporter.say)
        with pytest.raises(KeyboardInterrupt), regions_run(store, reporter, workers, options, {}, plan):
            client = workers.cluster()._client
            writing = client.submit(exec, WRITE.format(out=store.root))
            while not store.exists("begun"):
                time.sleep(0.01)
            raise KeyboardInterrupt
        assert client.status == "closed" and writing.cancelled()
        assert not store.names("locks") and store.names("regions") == ["regions/field.json"]
