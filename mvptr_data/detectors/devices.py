"""Where the detector computes, and how numbers come there and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

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


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host's on `device`, without waiting for what the device has yet to do: a plain `to` would."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


class Fetched:
    """Tensors of one device on their way to the host, begun when this is made. `get` waits for them, and for no work after."""

    def __init__(self, *tensors: Tensor) -> None:
        self._copies = tuple(tensor.to("cpu", non_blocking=True) for tensor in tensors)
        self._arrival: torch.cuda.Event | None = None
        if tensors[0].device.type == "cuda":
            self._arrival = torch.cuda.Event()
            self._arrival.record(torch.cuda.current_stream(tensors[0].device))

    def get(self) -> tuple[Tensor, ...]:
        """The tensors, on the host. Before, what is in them is undefined."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._copies


@contextmanager
def one_thread() -> Iterator[None]:
    """For many small operations: waking torch's other threads, which then wait busily for more, costs more than they help."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
