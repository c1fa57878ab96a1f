"""What a sample's members hold, as bytes and back.

Shapes: K regions of one image.

* `boxes.npy`    float32 [K, 4], absolute x1 y1 x2 y2 in pixels of the image (0..1 where width and height are null)
* `features.npy` float16 [K, 2048]
* `regions.json` the rest of an image's regions
* `text.json`    an image's captions with the phrases the vocabulary knows

Arrays are self-describing `.npy` without pickle. The six geometry numbers of the model's input are recomputed from the boxes
in float32 (`geometry`), never stored.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from tokenize import TokenError
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mvptr_data.dataset.layout import check_version, version
from mvptr_data.errors import DamagedFileError
from mvptr_data.storage import canonical_json

FEATURE_SIZE = 2048
#: Pixels by which a box may leave its image: float32 rounding of coordinates up to 10^4.
BOX_TOLERANCE = 1e-2
_NPY_1_0 = b"\x93NUMPY\x01\x00"
#: What numpy raises for a header that cannot be.
_NO_ARRAY = (ValueError, EOFError, TypeError, SyntaxError, TokenError, MemoryError, OverflowError, RecursionError)
#: Bytes before the numbers of a `.npy`; ours have 128.
_MOST_HEAD = 1024


class RegionsLike(Protocol):
    """The regions of one image, as detectors give them (`mvptr_data.detectors.Regions`)."""

    @property
    def boxes(self) -> NDArray[np.float32]: ...
    @property
    def features(self) -> NDArray[np.float32]: ...
    @property
    def scores(self) -> NDArray[np.float32]: ...
    @property
    def labels(self) -> NDArray[np.int32]: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    @property
    def attributes(self) -> tuple[tuple[str, ...], ...]: ...
    @property
    def attribute_scores(self) -> tuple[tuple[float, ...], ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionFacts:
    """`regions.json`: what is known of an image's K regions beside boxes and features."""

    width: int | None
    height: int | None
    scores: tuple[float, ...]
    labels: tuple[int, ...]
    tags: tuple[str, ...]
    attributes: tuple[tuple[str, ...], ...]
    attribute_scores: tuple[tuple[float, ...], ...]
    gold_tags: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPhrase:
    """A known phrase of a caption. `spans`: half-open code-point offsets into the caption's text, one per word of the phrase."""

    phrase: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """One caption. Phrases are in order of position in the text, then of rank in the vocabulary (`reference/model.md` 1)."""

    id: str
    text: str
    phrases: tuple[TextPhrase, ...]


def encode_array(array: NDArray[Any]) -> bytes:
    """The bytes of a C-ordered `.npy`, version 1.0."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def decode_array(data: bytes, where: str) -> NDArray[Any]:
    """The array of a `.npy`, a copy. Raises `DamagedFileError` naming `where`, also for more or fewer bytes than it promises."""
    try:
        head = data[: 10 + int.from_bytes(data[8:10], "little")]
        if data[:8] != _NPY_1_0 or len(head) > _MOST_HEAD:
            raise ValueError("it does not begin as version 1.0 does")
        shape, fortran, dtype = _header(head)
        promised = math.prod(shape) * dtype.itemsize
        if promised != len(data) - len(head):
            raise ValueError(f"it promises {promised} bytes of numbers and has {len(data) - len(head)}")
        order: Literal["F", "C"] = "F" if fortran else "C"
        return np.ndarray(shape, dtype, data, len(head), order=order).copy()
    except _NO_ARRAY as error:
        raise DamagedFileError(f"{where} is not a readable .npy array ({error})", "Extract its shard again.") from error


@lru_cache(maxsize=4096)
def _header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type, of what follows the head of a `.npy` of version 1.0."""
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(head[8:]))
    if dtype.kind not in "fiub":
        raise ValueError(f"no pickle and nothing else but numbers is read, not {dtype}")
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    return shape, fortran, dtype


def encode_regions(
    regions: RegionsLike, width: int | None, height: int | None, gold_tags: Sequence[str] | None = None
) -> dict[str, bytes]:
    """The members of an image's regions; `gold_tags` are the classes that people gave it, where some did.

    Raises `ValueError` for counts that differ, features beyond float16's range, or NaN.
    """
    count = len(regions.boxes)
    lengths = {
        name: len(getattr(regions, name))
        for name in ("features", "scores", "labels", "tags", "attributes", "attribute_scores")
    }
    if regions.boxes.shape != (count, 4) or set(lengths.values()) != {count}:
        raise ValueError(f"boxes are {regions.boxes.shape}, but the other parts have {lengths} entries")
    with np.errstate(over="ignore"):
        features = regions.features.astype(np.float16)
    if not np.isfinite(features).all():
        raise ValueError("a feature is NaN or beyond float16's 65504")
    if not np.isfinite(regions.boxes).all():
        raise ValueError("a box is NaN or infinite")
    if problem := box_problem(regions.boxes, width, height):
        raise ValueError(problem)
    facts = {
        "version": version("regions"),
        "width": width,
        "height": height,
        "scores": _rounded(regions.scores),
        "labels": [int(label) for label in regions.labels],
        "tags": list(regions.tags),
        "attributes": [list(names) for names in regions.attributes],
        "attribute_scores": [_rounded(scores) for scores in regions.attribute_scores],
    } | ({} if gold_tags is None else {"gold_tags": list(gold_tags)})
    return {
        "boxes.npy": encode_array(regions.boxes.astype(np.float32)),
        "features.npy": encode_array(features),
        "regions.json": canonical_json(facts),
    }


def box_problem(boxes: NDArray[np.float32], width: int | None, height: int | None) -> str | None:
    """What is wrong with boxes [K, 4] of an image of this size (None: coordinates 0..1), if anything is."""
    limit = np.array([width or 1, height or 1], dtype=np.float32)
    if not (boxes[:, 2:] >= boxes[:, :2]).all():  # equal where a detector counts the last pixel in
        return "a box ends before it begins (x2 < x1 or y2 < y1)"
    if (boxes < -BOX_TOLERANCE).any() or (boxes[:, 2:] > limit + BOX_TOLERANCE).any():
        return f"a box leaves its image of {width} x {height}"
    return None


def decode_regions(data: bytes, where: str) -> RegionFacts:
    """`regions.json`. Raises `DamagedFileError`, `FormatVersionError` naming `where`."""
    found = _json(data, where)
    check_version("regions", found.get("version"), where)
    try:
        facts = RegionFacts(
            width=found["width"],
            height=found["height"],
            scores=tuple(found["scores"]),
            labels=tuple(found["labels"]),
            tags=tuple(found["tags"]),
            attributes=tuple(map(tuple, found["attributes"])),
            attribute_scores=tuple(map(tuple, found["attribute_scores"])),
            gold_tags=tuple(found["gold_tags"]) if "gold_tags" in found else None,
        )
        _check_texts(chain(facts.tags, facts.gold_tags or (), *facts.attributes))
        _check_numbers([*facts.scores, *chain(*facts.attribute_scores)])
        sides = [side for side in (facts.width, facts.height) if side is not None]
        _check_whole([*facts.labels, *sides])
        if len(sides) == 1 or min(sides, default=1) < 1:
            raise TypeError(f"width {facts.width} and height {facts.height}")
    except (KeyError, TypeError, OverflowError) as error:
        raise _misstated(where, error, "Extract its shard again.") from error
    counts = {len(facts.scores), len(facts.labels), len(facts.tags), len(facts.attributes), len(facts.attribute_scores)}
    if len(counts) != 1 or [*map(len, facts.attributes)] != [*map(len, facts.attribute_scores)]:
        raise DamagedFileError(f"the lists in {where} have different lengths", "Extract its shard again.")
    return facts


def encode_text(split: str | None, captions: Sequence[Caption]) -> dict[str, bytes]:
    """The member of an image's captions."""
    value = {
        "version": version("text"),
        "split": split,
        "captions": [
            {
                "id": caption.id,
                "text": caption.text,
                "phrases": [{"phrase": list(known.phrase), "spans": known.spans} for known in caption.phrases],
            }
            for caption in captions
        ],
    }
    return {"text.json": canonical_json(value)}


def decode_text(data: bytes, where: str) -> tuple[str | None, tuple[Caption, ...]]:
    """`text.json` as (split, captions). Raises `DamagedFileError`, `FormatVersionError` naming `where`."""
    found = _json(data, where)
    check_version("text", found.get("version"), where)
    try:
        captions = tuple(
            Caption(
                id=item["id"],
                text=item["text"],
                phrases=tuple(
                    TextPhrase(
                        phrase=tuple(known["phrase"]), spans=tuple((start, end) for start, end in known["spans"])
                    )
                    for known in item["phrases"]
                ),
            )
            for item in found["captions"]
        )
        split = found["split"]
        phrases = [known for caption in captions for known in caption.phrases]
        _check_texts(chain([] if split is None else [split], *((caption.id, caption.text) for caption in captions)))
        _check_texts(chain.from_iterable(known.phrase for known in phrases))
        _check_whole([number for known in phrases for span in known.spans for number in span])
    except (KeyError, TypeError, ValueError) as error:
        raise _misstated(where, error, "Run write-shards again.") from error
    return split, captions


def geometry(boxes: NDArray[np.float32], width: int | None, height: int | None) -> NDArray[np.float32]:
    """float32 [K, 6]: x1/W, y1/H, x2/W, y2/H, (x2-x1)/W, (y2-y1)/H of boxes [K, 4] (`reference/model.md` 1).

    W and H are the image's; None means that the boxes are 0..1 already.
    """
    scale = np.array([width or 1, height or 1, width or 1, height or 1], dtype=np.float32)
    corners = boxes.astype(np.float32) / scale
    return np.concatenate([corners, corners[:, 2:] - corners[:, :2]], axis=1)


def _rounded(scores: Any) -> list[float]:
    """Probabilities with 6 decimals: beyond that is noise, and JSON stays short."""
    return [round(float(score), 6) for score in scores]


def _check_texts(values: Iterable[Any]) -> None:
    """Raises `TypeError` where a value is no text; the two functions below where one is no number, or none of 32 bits."""
    _check_types(list(values), {str}, "text")


def _check_numbers(values: list[Any]) -> None:
    _check_types(values, {int, float}, "a number")
    if not math.isfinite(sum(values)):
        raise TypeError("a number that is infinite")


def _check_whole(values: list[Any]) -> None:
    _check_types(values, {int}, "a whole number")
    if not -(1 << 31) <= min(values, default=0) <= max(values, default=0) < 1 << 31:
        raise TypeError("a number beyond 32 bits")


def _check_types(values: list[Any], types: set[type], kind: str) -> None:
    if not {*map(type, values)} <= types:
        odd = next(value for value in values if type(value) not in types)
        raise TypeError(f"{ascii(odd)[:60]}, where {kind} should be")


def _misstated(where: str, error: Exception, remedy: str) -> DamagedFileError:
    what = f"lacks {error}" if isinstance(error, KeyError) else f"has a value of another kind ({error})"
    return DamagedFileError(f"{where} {what}", remedy)


def _json(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object, its numbers and depth unchecked: a stream reads two such members a sample."""
    try:
        found = json.loads(data)
        if b"\\u" in data:
            json.dumps(found, ensure_ascii=False).encode()  # an escape may be half of a surrogate pair
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{where} is not JSON ({error})", "Write its shard again.") from error
    if not isinstance(found, dict):
        raise DamagedFileError(f"{where} is not a JSON object", "Write its shard again.")
    return found
