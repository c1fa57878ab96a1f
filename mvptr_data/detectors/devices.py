"""Where the detector computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mvptr_data.errors import InputError


def choose_device(name: str | None) -> torch.device:
    """The device called `name` ("cpu", "cuda", "cuda:1"); without a name, CUDA where there is one.

    Raises `InputError` for a device that is not here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device is {name!r}", "Choose cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device is {name!r}", "Choose cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device is {name!r}, torch sees {torch.cuda.device_count()} CUDA devices here",
            "Choose another device, or leave the option out.",
        )
    return device


@contextmanager
def one_thread() -> Iterator[None]:
    """For many small operations: waking torch's other threads, which then wait busily for more, costs more than they help."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
