"""Addresses of schedulers that somebody else started."""

from __future__ import annotations

import socket

import pytest
from distributed import LocalCluster

from mvptr_data.errors import InputError
from pipelines.cluster import ClusterOptions, kinds, open_cluster


def test_a_silent_address_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "CONNECT_TIMEOUT", 1)
    with pytest.raises(InputError, match=r"127\.0\.0\.1:1"), open_cluster(ClusterOptions(cluster="tcp://127.0.0.1:1")):
        pass


def test_a_server_that_is_no_scheduler_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the dashboard's: it waits for a request as Dask's client waits for a greeting."""
    monkeypatch.setattr(kinds, "CONNECT_TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        options = ClusterOptions(cluster=f"tcp://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(InputError, match="nothing there has spoken as Dask does"), open_cluster(options):
            pass


@pytest.mark.parametrize("address", ["foo://bar:1", "tcp://host:port", "tcp://", "tls://127.0.0.1:1"])
def test_what_is_no_address_is_one_clear_error(address: str) -> None:
    with pytest.raises(InputError, match="as a scheduler's address"), open_cluster(ClusterOptions(cluster=address)):
        pass


def test_workers_without_this_release_are_named_before_they_get_a_task() -> None:
    """A task whose function a worker cannot import ends its connection, and nobody else's would say why."""
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as remote:
        options = ClusterOptions(cluster=remote.scheduler_address)
        with open_cluster(options) as running:
            for spoil, said in (
                ("import mvptr_data.version; mvptr_data.version.__version__ = '0.0.1'", "mvptr-data 0.0.1"),
                ("import sys; sys.modules['mvptr_data.version'] = None", "ModuleNotFoundError"),
            ):
                running._client.run(exec, spoil)
                with pytest.raises(InputError, match=f"1 of 1 workers .*{said}"), open_cluster(options):
                    pass
