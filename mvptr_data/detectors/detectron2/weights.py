"""The weights that the adapter takes: files of tensors, and never a pickle."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from mvptr_data.errors import DamagedFileError, InputError
from mvptr_data.tensor_files import read_tensors

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
    tensors, digest = read_tensors(path)
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise DamagedFileError(f"{name!r} in {str(path)!r} has numbers that are not finite", "Get the file again.")
    return tensors, digest
