"""The weights file: fp16 matrices and fp32 vectors in safetensors, with what they were trained to say and how."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mvptr_data.detectors.compact.model import CompactModel, empty_model
from mvptr_data.detectors.compact.names import Names
from mvptr_data.errors import DamagedFileError, FormatVersionError, InputError

FORMAT = "mvptr-data/compact-detector"
FORMAT_VERSION = 1
BUNDLED_WEIGHTS = Path(__file__).with_name("weights.safetensors")

#: Everything but the tensors is one JSON text under this key: safetensors does not keep the order of several.
_METADATA_KEY = "mvptr_data"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A network from a weights file, in fp32, as it was trained (normalization not folded)."""

    model: CompactModel
    names: Names
    #: sha256 (hex) of the file's bytes.
    digest: str
    #: How the weights were made: the command, its seed and what it ran on.
    training: Mapping[str, object]


def save_weights(path: Path, model: CompactModel, names: Names, training: Mapping[str, object]) -> None:
    """Write `model` to `path`, whole or not at all. Equal models, names and `training` give equal bytes.

    Matrices and kernels are stored in fp16; vectors (biases, normalization statistics) keep fp32, which costs 60 kB and
    spares small variances.
    """
    tensors = {
        name: value.half() if value.is_floating_point() and value.ndim > 1 else value
        for name, value in model.state_dict().items()
    }
    described = {"format": FORMAT, "version": FORMAT_VERSION, "names": asdict(names), "training": dict(training)}
    contiguous = {name: value.detach().contiguous() for name, value in tensors.items()}
    data = save(contiguous, metadata={_METADATA_KEY: json.dumps(described, sort_keys=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_weights(path: Path) -> TrainedModel:
    """The network in `path`.

    Raises `InputError` where the file cannot be read or is no weights file of this detector, `FormatVersionError` for
    another version, and `DamagedFileError` where names or tensors do not fit the network.
    """
    try:
        digest = sha256(path.read_bytes()).hexdigest()
        with safe_open(path, framework="pt") as file:
            described = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise InputError(
            f"cannot read detector weights from {str(path)!r}: {error}", "Give a file that the training command wrote."
        ) from error
    if described.get("format") != FORMAT:
        raise InputError(f"{str(path)!r} holds no weights of the compact detector", "Leave the option `weights` out.")
    if described.get("version") != FORMAT_VERSION:
        raise FormatVersionError(
            f"{str(path)!r} has format version {described.get('version')!r}, this release reads {FORMAT_VERSION}",
            "Train again with this release, or install the release that wrote it.",
        )
    names = _names(path, described.get("names"))
    model = empty_model(names)
    try:
        model.load_state_dict(
            {name: value.float() if value.dtype == torch.half else value for name, value in tensors.items()}
        )
    except RuntimeError as error:
        raise DamagedFileError(
            f"the tensors in {str(path)!r} do not fit the network: {error}", "Train again."
        ) from error
    return TrainedModel(model=model.eval(), names=names, digest=digest, training=described.get("training", {}))


def _names(path: Path, value: object) -> Names:
    """The class names in a weights file's metadata; raises `DamagedFileError` where they are not lists of unique names."""
    described = value if isinstance(value, dict) else {}

    def part(name: str) -> tuple[str, ...]:
        listed = described.get(name)
        if not isinstance(listed, list) or not listed or not all(isinstance(entry, str) for entry in listed):
            raise DamagedFileError(f"{str(path)!r} lists no usable {name}: {listed!r}", "Train again.")
        if len(set(listed)) < len(listed):
            raise DamagedFileError(f"{str(path)!r} lists a name twice among its {name}: {listed!r}", "Train again.")
        return tuple(listed)

    return Names(kinds=part("kinds"), colors=part("colors"), sizes=part("sizes"))
