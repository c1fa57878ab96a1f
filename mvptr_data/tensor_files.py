"""Weights files: tensors by name, from safetensors or from what torch wrote. A pickle is never run."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Mapping
from hashlib import file_digest
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import load, load_file
from torch import Tensor

from mvptr_data.errors import DamagedFileError, InputError

SAFETENSORS = ".safetensors"
#: Under these names a training's checkpoint keeps the network's tensors.
TABLES = ("model", "state_dict", "module")
_PREFIX = "module."


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file by name, the prefix `module.` taken off, and the sha256 (hex) of its bytes.

    Raises `InputError` where the file cannot be opened, `DamagedFileError` where it is torn or holds other things.
    """
    try:
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"cannot read weights from {str(path)!r}: {error.strerror}", "Give the path of a file of weights."
        ) from error
    if path.suffix == SAFETENSORS:
        return _table(lambda: load_file(path), str(path)), digest
    # A file that torch wrote before 1.6 is no zip archive and cannot be mapped.
    mapped = zipfile.is_zipfile(path)
    return _table(lambda: torch.load(path, map_location="cpu", weights_only=True, mmap=mapped), str(path)), digest


def parse_tensors(data: bytes, where: str) -> dict[str, Tensor]:
    """`read_tensors` of the bytes of the file `where`, which need not be on this machine.

    Raises `DamagedFileError`, also for a tensor that stands for more than the file has: its places share memory, and it would
    fill the machine's when copied.
    """
    if where.endswith(SAFETENSORS):
        found = _table(lambda: load(data), where)
    else:
        found = _table(lambda: torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), where)
    for name, tensor in found.items():
        if tensor.layout != torch.strided or tensor.numel() * tensor.element_size() > len(data):
            raise DamagedFileError(f"{where} has {name} in another form than numbers one by one", "Save it anew.")
    return found


def _table(read: Callable[[], object], where: str) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():  # an error will say it, in one line
            warnings.simplefilter("ignore")
            content = read()
    except Exception as error:  # what a torn or hostile file makes torch raise is of no one type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        # torch's own words on other things than tensors are that they should be run.
        said = "" if isinstance(error, UnpicklingError) else f" ({reason})"
        raise DamagedFileError(
            f"cannot read tensors from {where!r}: it is torn, or holds other things, which are not run{said}",
            "Get it again, or save its state dict alone.",
        ) from error
    for name in TABLES:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise DamagedFileError(
            f"{where!r} holds no table of tensors", f"Give a state dict, or one under {', '.join(TABLES)}."
        )
    return {name.removeprefix(_PREFIX): value for name, value in content.items()}
