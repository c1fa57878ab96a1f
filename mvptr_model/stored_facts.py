"""What a model's input takes from a sample's JSON members, and nothing else of them.

`regions.json` holds 16 attributes and their scores for each region: 20 kB of which the input needs the tags. A decoder that knows
what is wanted steps over the rest, in a 17th of the time that `json` takes for the whole (`benchmarks/collate.py`). What it reads
is what `mvptr_data.dataset.records` reads.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec

from mvptr_data.dataset.layout import check_version
from mvptr_data.errors import DamagedFileError

_Pixels = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_CodePoint = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class RegionsInput(msgspec.Struct):
    """Of `regions.json`: the image's size (None: boxes are 0..1) and the classes of its K regions, best first."""

    version: int
    width: _Pixels | None
    height: _Pixels | None
    tags: list[str]
    gold_tags: list[str] | None = None


class KnownPhrase(msgspec.Struct):
    """A phrase of a caption; `spans` are half-open code-point offsets into its text, one for each content word."""

    phrase: tuple[str, ...]
    spans: list[tuple[_CodePoint, _CodePoint]]


class CaptionInput(msgspec.Struct):
    """Of `text.json`: one caption."""

    text: str
    phrases: list[KnownPhrase]


class _Text(msgspec.Struct):
    version: int
    captions: list[msgspec.Raw]


class _Versioned(msgspec.Struct):
    version: Any = None


_REGIONS = msgspec.json.Decoder(RegionsInput)
_TEXT = msgspec.json.Decoder(_Text)
_CAPTION = msgspec.json.Decoder(CaptionInput)
_VERSIONED = msgspec.json.Decoder(_Versioned)

#: All that a decoder raises for bytes that are not what they should be.
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Member(NamedTuple):
    """A JSON member's bytes, its format (`regions` or `text`), and what a message calls it."""

    data: bytes | memoryview
    format: str
    where: str


def read_regions(member: Member) -> RegionsInput:
    """Raises `DamagedFileError`, `FormatVersionError`, naming the member."""
    found: RegionsInput = _decode(_REGIONS, member)
    if (found.width is None) != (found.height is None):
        raise _damaged(member, ValueError(f"width {found.width} and height {found.height}"))
    return found


def read_caption(member: Member, nth: int) -> CaptionInput:
    """The n-th caption of a `text.json`; the others are stepped over. Raises `DamagedFileError`, `FormatVersionError`."""
    captions = _decode(_TEXT, member).captions
    if not 0 <= nth < len(captions):
        raise DamagedFileError(
            f"{member.where} has {len(captions)} captions, not number {nth}", "Run `mvptr-data verify`."
        )
    try:
        return _CAPTION.decode(captions[nth])
    except _FAULTS as error:
        raise _damaged(member, error) from error


def _decode(decoder: msgspec.json.Decoder[Any], member: Member) -> Any:
    try:
        found = decoder.decode(member.data)
    except _FAULTS as error:
        # Another version may hold other things; that is the better reason then.
        check_version(member.format, _version(member), member.where)
        raise _damaged(member, error) from error
    check_version(member.format, found.version, member.where)
    return found


def _version(member: Member) -> Any:
    try:
        return _VERSIONED.decode(member.data).version
    except _FAULTS as error:
        raise _damaged(member, error) from error


def _damaged(member: Member, error: Exception) -> DamagedFileError:
    return DamagedFileError(f"{member.where} lacks or misstates something ({error})", "Write its shard again.")
