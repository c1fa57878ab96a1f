"""Weights files: tensors by name, from a `.pth` or `.safetensors` file. A pickle is never run."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from mvptr_data.errors import DamagedFileError, InputError

SAFETENSORS, TORCH, PICKLES = (".safetensors",), (".pth", ".pt", ".bin"), (".pkl", ".pickle")


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file by name, and the sha256 (hex) of its bytes.

    Raises `InputError` where it cannot be opened or is a pickle, and `DamagedFileError` where it is torn or holds other things.
    """
    if path.suffix in PICKLES:
        raise InputError(
            f"the weights {str(path)!r} are a pickle, and reading one runs whatever code it holds",
            'Convert it once, where you trust it, to .safetensors: see "Weights in .pkl" in mvptr_data/detectors/README.md.',
        )
    if path.suffix not in (*SAFETENSORS, *TORCH):
        raise InputError(
            f"the weights {str(path)!r} are of no known kind", f"Give {', '.join((*TORCH, *SAFETENSORS))}."
        )
    try:
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read the weights {str(path)!r}: {error.strerror}", "Check the path.") from error
    tensors = _tensors(path)
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise DamagedFileError(f"{name!r} in {str(path)!r} has numbers that are not finite", "Get the file again.")
    return tensors, digest


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix in SAFETENSORS:
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
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise DamagedFileError(f"{str(path)!r} holds no table of tensors", "Give a state dict, or one under 'model'.")
    return {name.removeprefix("module."): value for name, value in content.items()}
