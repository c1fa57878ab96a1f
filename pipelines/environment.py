"""What a shard's receipt says of the process that wrote it."""

from __future__ import annotations

import platform
import socket
from datetime import UTC, datetime


def environment() -> dict[str, str]:
    """Machine, Python, host and the time (`finished`, UTC, whole seconds); in receipts, outside their digest.

    Call it when the work is done: the rate that `mvptr-data status` shows is counted from `finished`.
    """
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "finished": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
