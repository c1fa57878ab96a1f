"""The reference weights, made from their names (the recipe of the reference data), and files of them.

python tests/mvptr_data/detectors/vinvl/reference_weights.py ../shared/data/vinvl/weights_small.npz /tmp/vinvl.pth
"""

from __future__ import annotations

import math
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from mvptr_data.detectors.vinvl.architecture import X152_C4
from mvptr_data.detectors.vinvl.model import empty_model
from mvptr_data.detectors.vinvl.weights import COPY, ORIGINAL, expected_shapes

#: The copied stage, in full.
STAGE = "head.layer4."


def reference_state(small: Path, *, with_copy: bool = True) -> dict[str, Tensor]:
    """All 841 tensors of the reference weights; `small` is the file of those that no recipe makes."""
    given = np.load(small)
    state: dict[str, Tensor] = {}
    for name, shape in expected_shapes(empty_model(X152_C4), X152_C4).items():
        state[name] = torch.from_numpy(_tensor(name, shape, given))
        if with_copy and name.startswith(ORIGINAL + STAGE):
            state[COPY + name.removeprefix(ORIGINAL)] = state[name]
    return state


def _tensor(name: str, shape: tuple[int, ...], given: np.lib.npyio.NpzFile) -> np.ndarray:
    if name in given:
        return given[name]
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    by_row, by_all = name.replace(".weight", ".row_scale"), name.replace(".weight", ".scale")
    if by_row in given:
        scaled = values.reshape(shape[0], -1) * given[by_row].astype(np.float32)[:, None]
        return scaled.reshape(shape)
    if by_all in given:
        return values * np.float32(given[by_all])
    return values * np.float32(math.sqrt(2 / math.prod(shape[1:])))


def main() -> None:
    """Write the weights to the path given: `{"model": ...}` for .pth, the bare table for .safetensors."""
    small, output = map(Path, sys.argv[1:3])
    if output.suffix == ".safetensors":
        save_file(reference_state(small, with_copy=False), output)
    else:
        torch.save({"model": reference_state(small)}, output)
    print(f"wrote {output} ({output.stat().st_size / 1e6:.0f} MB)")


if __name__ == "__main__":
    main()
