"""What one line of a features or predictions TSV says of an image, in the forms that are about (`reference/model.md` 7).

Shapes: K regions of one image.

| form | line |
|---|---|
| `features` | `id`, `K`, `base64(float32 [K, 2054 or 2048])`; or `id`, JSON: `{"num_boxes": K, "features": base64}` |
| `predictions` | `id`, JSON: `{"image_h", "image_w", "objects": [...], "gt_objects": [...]}` or the bare list of objects |
| `mvptr` | `id`, JSON: `{"feature": base64(float32 [K, 2054 or 2048]), "predictions": [tag, ...]}` |

An object is `{"class", "conf", "rect": [x1, y1, x2, y2], "feature", "attributes", "attr_scores", "class_id"}`, each part of it
optional. Here lines become `LineParts`, whatever their form; `feature_regions.py` makes an image's regions of them.
"""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvptr_data.dataset.records import FEATURE_SIZE
from mvptr_data.errors import SampleFault
from mvptr_data.sources.tsv_lines import MAX_LINE_BYTES

#: 2048 numbers of the detector, and the six of the geometry where the line has them.
GEOMETRY_SIZE = 6
WIDTHS = (FEATURE_SIZE, FEATURE_SIZE + GEOMETRY_SIZE)
#: Pixels that a side of an image can have; no picture has more, and the data set's columns hold it.
MAX_SIDE = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LineParts:
    """What a line says of its K regions; None is what it says nothing of.

    `vectors` float32 [K, 2048]; `geometry` float32 [K, 6], in parts of the image; `rects` float64 [K, 4], x1 y1 x2 y2 in
    pixels where `size` (width, height) is known; the other parts have K entries, of which single ones may be None.
    """

    count: int
    vectors: NDArray[np.float32] | None = None
    geometry: NDArray[np.float32] | None = None
    rects: NDArray[np.float64] | None = None
    size: tuple[int, int] | None = None
    tags: tuple[str | None, ...] | None = None
    scores: tuple[float | None, ...] | None = None
    labels: tuple[int, ...] | None = None
    attributes: tuple[tuple[str, ...], ...] | None = None
    attribute_scores: tuple[tuple[float, ...], ...] | None = None
    gold_tags: tuple[str, ...] | None = None


def read_features(body: bytes) -> LineParts:
    """`K` and the base64 of a float32 array, in two cells or in one of JSON. Raises `SampleFault("broken_record")`."""
    cells = body.split(b"\t")
    is_json = len(cells) == 1 and body.lstrip().startswith(b"{")
    count, encoded = _from_json(body) if is_json else _from_cells(cells)
    vectors, geometry = _arrays([encoded], count)
    return LineParts(count=count, vectors=vectors, geometry=geometry)


def _from_cells(cells: list[bytes]) -> tuple[int, bytes]:
    if len(cells) != 2:
        raise _broken(f"the line has {len(cells) + 1} cells, not 3")
    try:
        return int(cells[0]), cells[1]
    except ValueError as error:
        raise _broken(f"the number of regions is {_shown(cells[0])}") from error


def _from_json(body: bytes) -> tuple[int, str]:
    """K and the base64, as Oscar's files for captioning have them."""
    found = read_json(body)
    count = found.get("num_boxes")
    if type(count) is not int:
        raise _broken(f"num_boxes is {_shown(count)}, not a number of regions")
    return count, _base64_text(found.get("features"))


def read_mvptr(body: bytes) -> LineParts:
    """The authors' own extractor: one array and a tag for each region. Raises `SampleFault("broken_record")`."""
    found = read_json(body)
    if not isinstance(found, dict) or not isinstance(found.get("predictions"), list):
        raise _broken("the JSON has no list 'predictions'")
    tags = tuple(_text(tag, "a prediction") for tag in found["predictions"])
    vectors, geometry = _arrays([_base64_text(found.get("feature"))], len(tags))
    return LineParts(count=len(tags), vectors=vectors, geometry=geometry, tags=tags)


def read_predictions(body: bytes) -> LineParts:
    """Objects, with or without features and the image's size. Raises `SampleFault("broken_record")`."""
    found = read_json(body)
    facts: dict[str, Any] = {"objects": found} if isinstance(found, list) else found
    if not isinstance(facts, dict) or not isinstance(facts.get("objects"), list):
        raise _broken("the JSON is no list, and has no list 'objects'")
    objects = facts["objects"]
    if not all(isinstance(item, dict) for item in objects):
        raise _broken("an object is not a JSON object")
    encoded = _each(objects, "feature", _base64_text)
    vectors, geometry = _arrays(encoded, len(objects)) if encoded is not None else (None, None)
    rects = _each(objects, "rect", _rect)
    attributes = [_names(item.get("attributes")) for item in objects]
    return LineParts(
        count=len(objects),
        vectors=vectors,
        geometry=geometry,
        rects=None if rects is None else np.array(rects, np.float64).reshape(len(objects), 4),
        size=read_size(facts.get("image_w"), facts.get("image_h")),
        tags=tuple(_optional(item.get("class"), lambda value: _text(value, "a class")) for item in objects),
        scores=tuple(_optional(item.get("conf"), lambda value: _number(value, "conf")) for item in objects),
        labels=tuple(_label(item.get("class_id")) for item in objects),
        attributes=tuple(attributes),
        attribute_scores=tuple(
            _attribute_scores(item.get("attr_scores"), len(names))
            for item, names in zip(objects, attributes, strict=True)
        ),
        gold_tags=_gold_tags(facts.get("gt_objects")),
    )


#: The forms by name.
FORMS: dict[str, Callable[[bytes], LineParts]] = {
    "features": read_features,
    "predictions": read_predictions,
    "mvptr": read_mvptr,
}

#: What a JSON object of each form has to name; the first that fits counts.
_NAMES = {"mvptr": ("feature", "predictions"), "predictions": ("objects",), "features": ("num_boxes", "features")}


def form_of(body: bytes) -> str | None:
    """The form that a line's body (all after its id) has; None where it has none of them."""
    cells = body.split(b"\t")
    if len(cells) == 2:
        return "features" if cells[0].strip().isdigit() else None
    try:
        found = read_json(body)
    except SampleFault:
        return None
    if isinstance(found, list):
        return "predictions"
    named = found if isinstance(found, dict) else {}
    return next((form for form, names in _NAMES.items() if all(name in named for name in names)), None)


def read_size(width: Any, height: Any) -> tuple[int, int] | None:
    """(width, height) in pixels; None where both are unknown. Raises `SampleFault("broken_record")`."""
    if width is None and height is None:
        return None
    sides = [_number(side, "the image's size") for side in (width, height)]
    if not all(side == int(side) and 1 <= side <= MAX_SIDE for side in sides):
        raise _broken(f"the image's size is {_shown(width)} x {_shown(height)}")
    return int(sides[0]), int(sides[1])


def read_json(body: bytes) -> Any:
    """A JSON value without NaN. Raises `SampleFault("broken_record")`."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, no UTF-8, or a number of over 4,300 digits
        raise _broken(f"the line is not JSON: {str(error)[:200]}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _broken(message: str) -> SampleFault:
    return SampleFault("broken_record", message)


def _shown(value: Any) -> str:
    """A value for a message, however long it may be."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _arrays(encoded: list[Any], count: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """[K, 2048] and, for lines of 2054 numbers, [K, 6], from the base64 of one array or of one for each region."""
    if not 0 <= count <= MAX_LINE_BYTES:
        raise _broken(f"the number of regions is {_shown(count)}")
    try:
        # strict_mode: without it, what is no base64 is passed over, and the numbers after it are others.
        raw = b"".join([binascii.a2b_base64(text, strict_mode=True) for text in encoded])
    except ValueError as error:  # binascii.Error, or a str with other than ASCII
        raise _broken(f"a feature is not base64: {error}") from error
    width = next((width for width in WIDTHS if len(raw) == 4 * width * count), None)
    if width is None:
        per_region = len(raw) / 4 / count if count else math.inf
        wanted = " or ".join(map(str, WIDTHS))
        raise _broken(
            f"{len(raw):,} bytes of features are not {count} regions of {wanted} float32 numbers ({per_region:,.4g} each)"
        )
    array = np.frombuffer(raw, "<f4").reshape(count, width)
    if not np.isfinite(array).all():
        raise _broken("a feature is NaN or infinite")
    # An image without regions has none of either; the width of nothing says nothing.
    has_geometry = width > FEATURE_SIZE or not count
    geometry = array[:, FEATURE_SIZE:] if count else np.empty((0, GEOMETRY_SIZE), np.float32)
    return array[:, :FEATURE_SIZE], geometry if has_geometry else None


def _each(objects: list[dict[str, Any]], name: str, read: Callable[[Any], Any]) -> list[Any] | None:
    """`read` of this part of every object; None where no object has it. Raises `SampleFault` where only some have it."""
    values = [item.get(name) for item in objects]
    lacking = [number for number, value in enumerate(values) if value is None]
    if objects and len(lacking) == len(objects):
        return None
    if lacking:
        raise _broken(f"{len(lacking)} of {len(objects)} objects have no {name!r} (object {lacking[0]}), the others do")
    return [read(value) for value in values]


def _optional(value: Any, read: Callable[[Any], Any]) -> Any:
    return None if value is None else read(value)


def _base64_text(value: Any) -> str:
    if not isinstance(value, str):
        raise _broken(f"a feature is {_shown(value)}, not base64")
    return value


def _rect(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 4:
        raise _broken(f"a rect is {_shown(value)}, not [x1, y1, x2, y2]")
    return [_number(part, "a rect") for part in value]


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _broken(f"{what} is {_shown(value)}, not a number")
    try:
        number = float(value)
    except OverflowError:  # an integer of more than 308 digits
        number = math.inf
    if not math.isfinite(number):  # 1e999 is JSON
        raise _broken(f"{what} is {_shown(value)}, which is too large")
    return number


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise _broken(f"{what} is {_shown(value)}, not a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _broken(f"{what} is {_shown(value)}, and half of a surrogate pair is no letter") from error
    return value.strip()


def _label(value: Any) -> int:
    """The class's number; 0, which no class has, where the file does not tell it."""
    number = 0.0 if value is None else _number(value, "a class_id")
    if number != int(number) or not 0 <= number < 1 << 31:
        raise _broken(f"a class_id is {_shown(value)}")
    return int(number)


def _names(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _broken(f"attributes are {_shown(value)}, not a list of names")
    return tuple(_text(name, "an attribute") for name in value)


def _attribute_scores(value: Any, count: int) -> tuple[float, ...]:
    """The scores of `count` attributes; 1.0 each where the file has none."""
    if value is None:
        return (1.0,) * count
    if not isinstance(value, list) or len(value) != count:
        raise _broken(f"{count} attributes have the scores {_shown(value)}")
    return tuple(_number(score, "an attribute's score") for score in value)


def _gold_tags(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _broken(f"gt_objects are {_shown(value)}, not a list of objects")
    names = (_text(item.get("class"), "a gt_object's class") for item in value)
    return tuple(name for name in names if name)
