"""The names of classes and attributes in a label map, as VinVL's weights come with (`VG-SGG-dicts-vgoi6-clipped.json`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from mvptr_data.errors import DamagedFileError, InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMap:
    """Names in the order of the network's outputs: label 1 is the first class, attribute 1 the first attribute."""

    classes: tuple[str, ...]
    attributes: tuple[str, ...]

    def digest(self) -> str:
        """sha256 (hex) of the names, whatever the spacing of the file they came from."""
        return sha256(json.dumps([self.classes, self.attributes]).encode()).hexdigest()


def load_label_map(path: Path, *, classes: int, attributes: int) -> LabelMap:
    """The label map in `path`, which must name each of so many outputs of the network; see `read_names`."""
    return LabelMap(classes=read_names(path, "classes", classes), attributes=read_names(path, "attributes", attributes))


def read_names(path: Path, what: Literal["classes", "attributes"], outputs: int) -> tuple[str, ...]:
    """The names of one kind in `path`: JSON with `label_to_idx` and `attribute_to_idx`, or `idx_to_label` and `idx_to_attribute`.

    Raises `InputError` where the file cannot be opened or has another number of names than the network has outputs, and
    `DamagedFileError` where it is no label map or does not name every index from 1.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"cannot read a label map from {str(path)!r}: {error.strerror}",
            "Give the path of the label map, such as VG-SGG-dicts-vgoi6-clipped.json.",
        ) from error
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{str(path)!r} is no JSON: {error}", "Fetch the label map again.") from error
    kind = "label" if what == "classes" else "attribute"
    table = content if isinstance(content, dict) else {}
    forward, backward = table.get(f"{kind}_to_idx"), table.get(f"idx_to_{kind}")
    if isinstance(forward, dict):
        pairs = [(index, name) for name, index in forward.items()]
    elif isinstance(backward, dict):
        pairs = [(int(index) if index.isdecimal() else index, name) for index, name in backward.items()]
    else:
        raise DamagedFileError(
            f"{str(path)!r} has neither {kind}_to_idx nor idx_to_{kind}",
            "Give the label map that belongs to the weights.",
        )
    names = {index: name for index, name in pairs if isinstance(name, str) and type(index) is int}
    # Some label maps list the background too, with index 0.
    names.pop(0, None)
    if len(names) != outputs:
        raise InputError(
            f"the label map {str(path)!r} names {len(names)} {what}, the weights have {outputs}",
            "Give the label map that belongs to the weights.",
        )
    missing = next((index for index in range(1, outputs + 1) if index not in names), None)
    if missing is not None:
        raise DamagedFileError(
            f"the label map {str(path)!r} names no {kind} {missing}, though there should be {outputs} from 1",
            "Give the label map that belongs to the weights.",
        )
    return tuple(names[index] for index in range(1, outputs + 1))
