"""The caption files and folders that a command was given, known by their bytes.

Names say nothing: a copy under another name holds the same captions, and a file may be written anew while it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from mvptr_data.errors import InputError
from mvptr_data.sources.captions import CAPTION_SUFFIXES
from mvptr_data.sources.files import absolute, kind_of, open_file, walk

#: The sha256 of an empty file, which holds no captions.
_EMPTY = hashlib.sha256().hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionInput:
    """A given path. `files`: path and sha256 of each caption file in it; of a file, its own."""

    path: str
    name: str
    sha256: str
    files: tuple[tuple[str, str], ...]
    is_folder: bool

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from another; of a folder, `sha256` is that of its files' digests."""
        return {"name": self.name, "sha256": self.sha256}

    @property
    def counted(self) -> dict[str, Any]:
        """As a vocabulary remembers it: of a folder each file too, so that it is known wherever else it is counted."""
        return self.identity | ({"files": [sha256 for _, sha256 in self.files]} if self.is_folder else {})


def identify_inputs(paths: Sequence[str]) -> list[CaptionInput]:
    """Raises `InputError` for a path where nothing is, or what cannot be read, and where two hold the same file."""
    inputs = [_identify(path) for path in paths]
    for one, other in combinations(inputs, 2):
        shared = files_of(one.counted) & files_of(other.counted)
        if shared:
            first, sha256 = next(found for found in one.files if found[1] in shared)
            second = next(path for path, found in other.files if found == sha256)
            raise InputError(
                f"{first} and {second} are the same captions, which would be counted twice", "Leave one of them out."
            )
    return inputs


def check_unchanged(inputs: Sequence[CaptionInput]) -> None:
    """Raises `InputError` where one of them is not what it was when it was identified."""
    if changed := [found.path for found in inputs if _identify(found.path) != found]:
        raise InputError(
            f"{', '.join(changed)} was changed while its captions were read",
            "Run the same command again when nothing writes there any more.",
        )


def files_of(counted: Mapping[str, Any]) -> frozenset[str]:
    """The sha256 of each caption file of an input, as a vocabulary remembers it, but for empty ones."""
    # Vocabularies of earlier releases know a folder as a whole only.
    return frozenset(counted.get("files", [counted["sha256"]])) - {_EMPTY}


def _identify(path: str) -> CaptionInput:
    root = absolute(path)
    kind = kind_of(root)
    if kind is None:
        raise InputError(
            f"there are no captions at {path}",
            "Give a COCO or Karpathy JSON, JSONL(.gz), TSV or Parquet file, or a folder of them.",
        )
    name = root.rsplit("/", 1)[-1]
    if kind == "file":
        sha256 = _sha256(root)
        return CaptionInput(path=path, name=name, sha256=sha256, files=((path, sha256),), is_folder=False)
    # Images and tars may lie beside captions (img2dataset): they say nothing, and may be terabytes.
    uris = [found.uri for found in walk(root, _is_caption_file) if not found.problem]
    files = tuple((uri, _sha256(uri)) for uri in uris)
    of_all = hashlib.sha256(b"".join(bytes.fromhex(sha256) for _, sha256 in files)).hexdigest()
    return CaptionInput(path=path, name=name, sha256=of_all, files=files, is_folder=True)


def _sha256(file: str) -> str:
    try:
        with open_file(file) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    except OSError as error:
        raise InputError(f"cannot read {file}: {error}", "Check the path and its permissions.") from error


def _is_caption_file(name: str) -> bool:
    return name.lower().endswith(CAPTION_SUFFIXES)
