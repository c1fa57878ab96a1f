"""Captions in one JSON document: COCO (`images`, `annotations`), Karpathy (`images[].sentences[]`), or a list of rows.

Documents are loaded whole: COCO val2017, 25,014 captions in a file of 3.9 MB, takes 20 MB while it is read.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import IO, Any

from mvptr_data.errors import InputError, SampleFault
from mvptr_data.sources.caption_rows import Caption, RowReader

_SHAPES = "COCO (images and annotations with captions), Karpathy (images with sentences), or a list of rows"


def read_document(file: IO[bytes], rows: RowReader) -> Iterator[Caption]:
    """Raises `InputError` where the file is not JSON (with line and column), or of no known shape."""
    document = _load(file, rows.source)
    if isinstance(document, list):
        for number, row in enumerate(document):
            yield from rows.read(row, None, f"[{number}]")
        return
    images = document.get("images") if isinstance(document, dict) else None
    annotations = document.get("annotations") if isinstance(document, dict) else None
    if isinstance(images, list) and isinstance(annotations, list):
        if annotations and not any(isinstance(found, dict) and "caption" in found for found in annotations):
            raise InputError(f"{rows.source} has annotations, but none has a caption", "Give COCO's captions_*.json.")
        yield from _read_coco(images, annotations, rows)
    elif isinstance(images, list) and any(isinstance(image, dict) and "sentences" in image for image in images):
        for number, image in enumerate(images):
            yield from rows.read(image, None, f"images[{number}]")
    else:
        raise InputError(f"{rows.source} is JSON, but no caption file that is known", f"Known are {_SHAPES}.")


def _read_coco(images: list[Any], annotations: list[Any], rows: RowReader) -> Iterator[Caption]:
    keys: dict[str | int, str] = {}
    for number, image in enumerate(images):
        try:
            identifier = _identifier(image, "id")
            if identifier in keys:
                raise SampleFault("broken_record", f"the image id {identifier!r} was given before")
            keys[identifier] = rows.key(rows.rule.find(image)[1])
        except SampleFault as fault:
            yield rows.fault(fault, None, f"images[{number}]")
    numbers = dict.fromkeys(keys.values(), 0)
    for number, annotation in enumerate(annotations):
        key = None
        try:
            identifier = _identifier(annotation, "image_id")
            if identifier not in keys:
                raise SampleFault("broken_record", f"no usable image has the id {identifier!r}")
            key = keys[identifier]
            text = annotation.get("caption")
            if not isinstance(text, str):
                raise SampleFault("broken_record", "there is no caption, or it is not a text")
            caption_id = annotation.get("id")
            if caption_id is None:
                caption_id = f"{key}#{numbers[key]}"
                numbers[key] += 1
            yield rows.record(key, None, caption_id, text)
        except SampleFault as fault:
            yield rows.fault(fault, None, f"annotations[{number}]", key)


def _identifier(entry: Any, field: str) -> str | int:
    if not isinstance(entry, dict):
        raise SampleFault("broken_record", "it is not an object with fields")
    identifier = entry.get(field)
    if not isinstance(identifier, (int, str)) or isinstance(identifier, bool):
        raise SampleFault("broken_record", f"its {field!r} is missing, or neither a number nor a text")
    return identifier


def _load(file: IO[bytes], source: str) -> Any:
    remedy = "Mend the file, or get it again."
    try:
        data = file.read()
        return json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        message = f"{source} is not JSON: line {error.lineno} column {error.colno}: {error.msg}"
        raise InputError(message, remedy) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"{source} is not UTF-8: {error.reason} at byte {error.start} (line {line})"
        raise InputError(message, remedy) from error
    except (ValueError, RecursionError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{source} cannot be read: {error}", remedy) from error
