"""One row (a dictionary of fields) to its captions: where a row keeps its image's key, its texts, their ids and its split."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvptr_data.errors import InputError, SampleFault
from mvptr_data.keys import check_key
from mvptr_data.sources.refs import IMAGE_SUFFIXES, image_key

#: Fields that may name the image; the first that a row has is taken.
KEY_FIELDS = ("key", "image", "file", "file_name", "filename", "image_id", "id", "url")
#: Fields that may hold the caption or a list of captions; the first that a row has is taken.
CAPTION_FIELDS = ("captions", "caption", "sentences", "text")
#: Fields of a caption that is an object (Karpathy: `raw`).
TEXT_FIELDS = ("raw", "caption", "text")
#: Fields that may identify a caption. A row's own `id` does so only if the row has one caption and another field is the key.
ID_FIELDS = ("sentid", "caption_id", "id")
SPLIT_FIELD = "split"
ROW_FIELDS = (*KEY_FIELDS, *CAPTION_FIELDS, *ID_FIELDS, SPLIT_FIELD)

_TEMPLATE_FIELD = re.compile(r"\{([^{}]+)\}")
# Flickr30k's token file numbers the captions in the image's name: 1000092795.jpg#0
_NUMBERED = re.compile(rf"(.*(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))}))#(\d+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionRecord:
    """One caption as the file has it. `key` is its image's key, checked; `split` is None where the file names none."""

    key: str
    split: str | None
    caption_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionFault:
    """A line or record that gave no caption. `source` is the file's path; `fault_class` is one of `FAULT_CLASSES`.

    `line` counts from 1; it is None in files that have no lines, where `message` says which record it is.
    """

    source: str
    line: int | None
    fault_class: str
    message: str
    key: str | None


Caption = CaptionRecord | CaptionFault


def storable(text: str) -> str:
    """Text that UTF-8 can hold: half a surrogate pair is written out as an escape."""
    return text.encode(errors="backslashreplace").decode()


class KeyRule:
    """How a row names its image: the first of `KEY_FIELDS`, one field, or a template of fields (`{filepath}/{filename}`).

    Raises `InputError` for a template that cannot be read.
    """

    def __init__(self, caption_key: str | None) -> None:
        self.template = caption_key
        self.fields: tuple[str, ...] = ()
        if caption_key is None:
            return
        self.fields = tuple(_TEMPLATE_FIELD.findall(caption_key)) or (caption_key,)
        if not caption_key.strip() or re.search(r"[{}]", _TEMPLATE_FIELD.sub("", caption_key)):
            raise InputError(
                f"the caption key {caption_key!r} is no field name or template",
                "Give a field name, or fields in braces: '{filepath}/{filename}'.",
            )

    def find(self, row: Mapping[str, Any]) -> tuple[str | None, Any]:
        """The field that was used (None for a template) and the value. Raises `SampleFault("broken_record")`."""
        if self.template is None:
            for field in KEY_FIELDS:
                value = row.get(field)
                if value is not None:
                    return field, value
            raise SampleFault("broken_record", f"there is no image key (none of {', '.join(KEY_FIELDS)})")
        values = {field: row.get(field) for field in self.fields}
        if None in values.values():
            absent = ", ".join(field for field, value in values.items() if value is None)
            raise SampleFault(
                "broken_record", f"the fields of the caption key {self.template!r} are not all there ({absent})"
            )
        if self.template in values:
            return self.template, values[self.template]
        return None, _TEMPLATE_FIELD.sub(lambda match: _name(values[match[1]]), self.template)


class RowReader:
    """Reads the rows of one file. Captions without an id get `{key}#{n}`, n counting those of adjacent rows with one key."""

    def __init__(self, source: str, rule: KeyRule) -> None:
        self.source = storable(source)
        self.rule = rule
        self._value: Any = None
        self._key = ""
        self._caption_number: int | None = None
        self._count = 0

    def fault(self, fault: SampleFault, line: int | None, place: str = "", key: str | None = None) -> CaptionFault:
        message = f"{place}: {fault.message}" if place else fault.message
        return CaptionFault(
            source=self.source,
            line=line,
            fault_class=fault.fault_class,
            message=storable(message),
            key=None if key is None else storable(key),
        )

    def read(self, row: object, line: int | None, place: str = "") -> list[Caption]:
        """The captions of one row, and a fault for each that is none. `place` names the row where there are no lines."""
        key = None
        try:
            if not isinstance(row, Mapping):
                raise SampleFault("broken_record", f"{_short(row)} is not an object with fields")
            field, value = self.rule.find(row)
            key = self.key(value)
            split = _split(row.get(SPLIT_FIELD))
            texts, row_id = _texts(row, field)
        except SampleFault as fault:
            return [self.fault(fault, line, place, key)]
        captions: list[Caption] = []
        for item in texts:
            try:
                text, own_id = (item, row_id) if isinstance(item, str) else _text_and_id(item)
                captions.append(self.record(key, split, own_id, text))
            except SampleFault as fault:
                captions.append(self.fault(fault, line, place, key))
        return captions

    def key(self, value: Any) -> str:
        """The checked key of an image named by `value`. Raises `SampleFault`: `unsafe_key`, `broken_record`."""
        if value != self._value or type(value) is not type(self._value):
            name = _name(value)
            numbered = _NUMBERED.fullmatch(name)
            key = check_key(image_key(numbered[1] if numbered else name))
            if key != self._key:
                self._key, self._count = key, 0
            self._value, self._caption_number = value, int(numbered[2]) if numbered else None
        return self._key

    def record(self, key: str, split: str | None, caption_id: Any, text: str) -> CaptionRecord:
        """One caption. Raises `SampleFault`: `empty_caption`, `broken_record`."""
        number = self._count if self._caption_number is None else self._caption_number
        self._count += 1
        if not text or text.isspace():
            raise SampleFault("empty_caption", "the caption has no text")
        if not text.isascii():
            _check_unicode(text)
        caption_id = f"{key}#{number}" if caption_id is None else _name(caption_id)
        return CaptionRecord(key=key, split=split, caption_id=caption_id, text=text)


def _texts(row: Mapping[str, Any], key_field: str | None) -> tuple[Sequence[Any], Any]:
    """The row's captions, and its caption id where it has one caption."""
    for field in CAPTION_FIELDS:
        value = row.get(field)
        if value is None or field == key_field:
            continue
        if isinstance(value, str):
            ids = (row[name] for name in ID_FIELDS if name != key_field and row.get(name) is not None)
            return (value,), next(ids, None)
        if not isinstance(value, list):
            raise SampleFault("broken_record", f"the field {field!r} is {_short(value)}, not a text or list of texts")
        if not value:
            raise SampleFault("no_captions", f"the field {field!r} is an empty list")
        return value, None
    raise SampleFault("broken_record", f"there is no caption (none of {', '.join(CAPTION_FIELDS)})")


def _text_and_id(item: object) -> tuple[str, Any]:
    """A caption that is an object."""
    if not isinstance(item, Mapping):
        raise SampleFault("broken_record", f"a caption is {_short(item)}, not a text or object")
    text = next((item[name] for name in TEXT_FIELDS if item.get(name) is not None), None)
    if not isinstance(text, str):
        raise SampleFault("broken_record", f"a caption's text (one of {', '.join(TEXT_FIELDS)}) is {_short(text)}")
    return text, next((item[name] for name in ID_FIELDS if item.get(name) is not None), None)


def _split(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise SampleFault("broken_record", f"the split is {_short(value)}, not a name")
    _check_unicode(value)
    return value.strip() or None


def _name(value: Any) -> str:
    """A key or id as text. Numbers may be floats: a table's integers become so where some are missing."""
    if isinstance(value, str):
        _check_unicode(value)
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    raise SampleFault("broken_record", f"{_short(value)} is no key or id, which are texts or whole numbers")


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SampleFault("broken_record", f"{_short(text)} has half a surrogate pair, which is no text") from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
