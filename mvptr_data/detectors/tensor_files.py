"""Weights files: tensors by name, from safetensors or from what torch wrote. A pickle is never run."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from mvptr_data.errors import DamagedFileError, InputError

#: Under these names a training's checkpoint keeps the network's tensors.
TABLES = ("model", "state_dict")


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file by name, the prefix `module.` taken off, and the sha256 (hex) of its bytes.

    Raises `InputError` where the file cannot be opened, `DamagedFileError` where it is torn or holds other things.
    """
    try:
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"cannot read detector weights from {str(path)!r}: {error.strerror}",
            "Give the path of the detector's weights.",
        ) from error
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            # A file that torch wrote before 1.6 is no zip archive and cannot be mapped.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DamagedFileError(
            f"cannot read tensors from {str(path)!r}: {reason}",
            "It is torn, or holds other things than tensors: get it again, or save its state dict alone.",
        ) from error
    for name in TABLES:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise DamagedFileError(
            f"{str(path)!r} holds no table of tensors", "Give a state dict, or one under 'model' or 'state_dict'."
        )
    return {name.removeprefix("module."): value for name, value in content.items()}, digest
