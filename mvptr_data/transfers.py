"""Tensors on their way between the host and the device that computes.

A GPU works through what it has been sent while the host goes on. A plain copy ends that: the host waits until the device has done
all it was sent before, and then the device waits for the host.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`, without waiting for the device if it comes from the host."""
    if device.type == "cpu" or tensor.device.type != "cpu":
        return tensor.to(device)
    if not tensor.is_contiguous() or not tensor.is_pinned():
        tensor = tensor.contiguous().pin_memory()  # what has gaps would be put together elsewhere, and waited for
    return tensor.to(device, non_blocking=True)


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
