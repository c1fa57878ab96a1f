"""Ready-made features as references: which bytes of which files are an image's.

An `ImageRef` of ours is a line of the first file; its `member` says what belongs to it elsewhere, as `predictions 123+456` (the
byte range of a line in the second file) and `size 640x480`. So a plan holds all that a shard needs, and nobody reads a file
twice.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvptr_data.errors import InputError, SampleFault
from mvptr_data.sources.feature_lines import FORMS, LineParts, form_of, read_json, read_size
from mvptr_data.sources.feature_regions import ReadyRegions, make_regions, merge
from mvptr_data.sources.files import open_file
from mvptr_data.sources.refs import ImageRef, image_key, make_ref
from mvptr_data.sources.tsv_lines import TsvLine, list_lines, read_line
from mvptr_data.sources.urls import own_link

#: Lines looked at to find out a file's form.
PROBED_LINES = 16
#: Bytes that a line of `read_sizes` can have.
MAX_SIZE_LINE = 4096
_MEMBER = re.compile(r"(?:predictions (\d+)\+(\d+))?(?: ?size (\d+)x(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSource:
    """Ready-made features. All files by absolute path or URL; `form` is one of `feature_lines.FORMS`.

    `predictions` is the file of objects that belongs to features of the form `features`; `sizes` one of ids and image sizes;
    `default_tag` the tag of regions whose class no file tells.
    """

    features: str
    form: str
    predictions: str | None = None
    sizes: str | None = None
    default_tag: str | None = None


class LineTable:
    """Where the line of each id is: 32 bytes a line. Of several lines with one key the first counts.

    `repeated` counts the others, `faulty` the lines without an id.
    """

    def __init__(self, lines: Iterator[TsvLine]) -> None:
        digests, places, sizes = array("Q"), array("q"), array("q")
        self.faulty = 0
        for line in lines:
            if line.id is None:
                self.faulty += 1
                continue
            digests.append(_digest(image_key(line.id)))
            places.append(line.offset)
            sizes.append(line.size)
        found, first = np.unique(_as_numpy(digests, np.uint64), return_index=True)
        self.repeated = len(digests) - len(found)
        self._digests = found
        self._ranges = np.stack([_as_numpy(part, np.int64)[first] for part in (places, sizes)])

    def __len__(self) -> int:
        return len(self._digests)

    def find(self, key: str) -> tuple[int, int] | None:
        """(offset, size) of the key's line; None where there is none."""
        wanted = np.uint64(_digest(key))
        place = int(np.searchsorted(self._digests, wanted))
        if place == len(self._digests) or self._digests[place] != wanted:
            return None
        offset, size = self._ranges[:, place].tolist()
        return offset, size


def find_form(uri: str) -> str:
    """The form of a file, by its first lines. Raises `InputError` where none of them has a known one."""
    for line in islice(list_lines(uri), PROBED_LINES):
        if line.problem is None and (form := form_of(_body(uri, line.offset, line.size)[1])) is not None:
            return form
    raise InputError(
        f"{uri!r} is no TSV of features that is known",
        f"Its first lines are none of {', '.join(FORMS)} (mvptr_data/sources/README.md shows them); name one with --format.",
    )


def read_sizes(uri: str) -> dict[str, tuple[int, int]]:
    """(width, height) by key, from lines of `id` and `[{"height", "width"}]`, the object alone, or `height width`.

    Held in memory: some 200 bytes an image. Raises `InputError` naming the line that says no size.
    """
    sizes: dict[str, tuple[int, int]] = {}
    try:
        with open_file(uri) as file:
            for number, raw in enumerate(iter(lambda: file.readline(MAX_SIZE_LINE), b""), 1):
                if not raw.strip():
                    continue
                name, tab, body = raw.partition(b"\t")
                try:
                    if not tab:
                        raise SampleFault("broken_record", "there is no tab, or the line is too long")
                    size = _size_of(body)
                except SampleFault as fault:
                    raise InputError(
                        f"line {number} of {uri!r} says no image size: {fault.message}",
                        'Lines are an id, a tab, and [{"height": H, "width": W}] or the two numbers H W.',
                    ) from fault
                sizes.setdefault(image_key(_id(name, is_first=number == 1)), size)
    except OSError as error:
        raise InputError(f"cannot read {uri!r}: {error}", "Check the path and its permissions.") from error
    return sizes


def list_features(
    source: FeatureSource,
    predictions: LineTable | None = None,
    offsets: NDArray[np.int64] | None = None,
    *,
    split: str | None = None,
) -> Iterator[ImageRef]:
    """A reference for every line of the first file, in its order. `offsets` are its lines', where they are known.

    A line without a usable id is a fault under the key `<file>#<line>`; one without predictions, where they were given, is
    `missing_file`. Repeated keys are found by the plan.
    """
    sizes = read_sizes(source.sizes) if source.sizes else {}
    name = own_link(source.features).rpartition("/")[2]
    for line in list_lines(source.features, offsets):
        key = f"{name}#{line.number}" if line.id is None else image_key(line.id)
        fault, parts = None, []
        if line.problem is not None:
            fault = SampleFault("broken_record", f"line {line.number}: {line.problem}")
        elif predictions is not None:
            if (found := predictions.find(key)) is None:
                fault = SampleFault("missing_file", f"the predictions have no line for {key!r}")
            else:
                parts.append(f"predictions {found[0]}+{found[1]}")
        if key in sizes:
            parts.append("size {}x{}".format(*sizes[key]))
        yield make_ref(
            key,
            source.features,
            split=split,
            member=" ".join(parts) or None,
            offset=line.offset,
            size=line.size,
            fault=fault,
        )


def read_regions(source: FeatureSource, ref: ImageRef) -> ReadyRegions:
    """The regions of a reference that is no fault.

    Raises `SampleFault` for what is wrong with the image's lines, `InputError` where the files changed since they were listed.
    """
    assert ref.offset is not None and ref.size is not None, "references of features have a byte range"
    match = _MEMBER.fullmatch(ref.member or "")
    assert match is not None, f"{ref.member!r} is no member of a line"
    parts = _parts(source.features, source.form, ref.key, ref.offset, ref.size)
    if match[1] and source.predictions:
        parts = merge(parts, _parts(source.predictions, "predictions", ref.key, int(match[1]), int(match[2])))
    size = (int(match[3]), int(match[4])) if match[3] else None
    return make_regions(parts, size=size, default_tag=source.default_tag)


def _parts(uri: str, form: str, key: str, offset: int, size: int) -> LineParts:
    name, body = _body(uri, offset, size)
    if image_key(name) != key:
        raise InputError(
            f"{uri!r} has {name!r} at byte {offset}, where {key!r} was when it was listed",
            "Bring back the file as it was, or import into another folder.",
        )
    return FORMS[form](body)


def _body(uri: str, offset: int, size: int) -> tuple[str, bytes]:
    """A line's id, and all after its first tab."""
    name, _, body = read_line(uri, offset, size).partition(b"\t")
    return _id(name, is_first=offset == 0), body


def _id(name: bytes, *, is_first: bool) -> str:
    """An id, without the byte order mark that the first of a file may have."""
    text = name.decode(errors="backslashreplace").strip()
    return text.removeprefix("\ufeff") if is_first else text


def _size_of(body: bytes) -> tuple[int, int]:
    if re.fullmatch(rb"\s*\d{1,8}\s+\d{1,8}\s*", body):
        height, width = map(int, body.split())
        return _known(read_size(width, height))
    found: Any = read_json(body)
    if isinstance(found, list) and len(found) == 1:
        [found] = found
    if not isinstance(found, dict):
        raise SampleFault("broken_record", "it is no object with height and width")
    return _known(read_size(found.get("width"), found.get("height")))


def _known(size: tuple[int, int] | None) -> tuple[int, int]:
    if size is None:
        raise SampleFault("broken_record", "there is no height and width")
    return size


def _digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def _as_numpy(values: array[int], dtype: type[np.generic]) -> NDArray[Any]:
    return np.frombuffer(values, dtype=dtype) if values else np.empty(0, dtype)
