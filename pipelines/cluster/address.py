"""A scheduler that somebody else started: whether one answers at the address, and whether its workers can do our tasks."""

from __future__ import annotations

import asyncio
import pkgutil
from typing import Any

from mvptr_data.errors import InputError
from mvptr_data.version import __version__
from pipelines.cluster.tasks import reason_of


def check_scheduler(address: str, timeout: float) -> None:
    """Raises `InputError` for no address, `OSError` where within `timeout` seconds nothing answers as Dask's servers do.

    Dask's own client waits for ever for the first word of a server of another kind, such as the one of its dashboard.
    """
    from distributed.comm import connect
    from distributed.security import Security
    from distributed.utils import LoopRunner

    async def greet() -> None:
        secure = Security().get_connection_args("client")
        comm = await asyncio.wait_for(connect(address, timeout=timeout, **secure), timeout + 1)
        comm.abort()

    loop = LoopRunner(asynchronous=False)  # in a thread of its own: a notebook's has a loop already
    loop.start()
    try:
        loop.run_sync(greet)
    except TimeoutError as error:
        if str(error):
            raise
        raise TimeoutError(f"within {timeout:.0f} s nothing there has spoken as Dask does") from error
    except (ValueError, TypeError) as error:  # a TypeError is TLS without its files
        raise InputError(
            f"Dask cannot use {address!r} as a scheduler's address ({reason_of(error)})",
            "Give one such as tcp://10.0.0.5:8786; for tls:// set distributed.comm.tls in Dask's configuration.",
        ) from error
    finally:
        loop.stop()


def check_workers(client: Any, address: str) -> None:
    """Raises `InputError` where a worker has no mvptr-data or another release: a task that it cannot read ends it."""
    found = client.run(pkgutil.resolve_name, "mvptr_data.version:__version__", on_error="return")
    wrong = {
        worker: reason_of(said) if isinstance(said, ImportError) else f"mvptr-data {said}"
        for worker, said in found.items()
        if isinstance(said, ImportError) or (isinstance(said, str) and said != __version__)
    }
    if wrong:
        worker, said = next(iter(wrong.items()))
        raise InputError(
            f"{len(wrong)} of {len(found)} workers at {address} cannot do the work ({worker}: {said})",
            f"Install mvptr-data {__version__} in the environment that the workers run in, and start them again.",
        )
