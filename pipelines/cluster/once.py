"""What a process makes at first use and keeps: how a worker comes by its model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

_made: dict[tuple[Any, ...], Any] = {}
_making = threading.Lock()


def once_per_process(factory: Callable[..., Result], *arguments: Any) -> Result:
    """`factory(*arguments)`, made at first use in each process and kept.

    Not a worker plugin, because a plugin's slow set-up blocks the worker's event loop, and one that raises leaves a broken
    worker in the pool.
    """
    with _making:
        if (factory, *arguments) not in _made:
            _made[(factory, *arguments)] = factory(*arguments)
        return _made[(factory, *arguments)]
