"""Where the detector computes."""

from __future__ import annotations

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
