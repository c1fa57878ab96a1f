"""Parsed captions on disk: hash-bucketed by image key, so that joining them to a plan needs one bucket in memory at a time.

`captions/00003.parquet` holds the captions of every image key whose CRC-32 is 3 modulo the number of buckets, sorted by key,
then by their number in the input. `captions/captions.json`, written last, says how they were made; it is the commit mark.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from mvptr_data.dataset import layout
from mvptr_data.dataset.forms import COUNT, OBJECT, TEXT, Each, Form, check_form
from mvptr_data.dataset.tables import described, read_table, table_sha256
from mvptr_data.errors import DamagedFileError, IncompleteError
from mvptr_data.storage import Store, digest

_PHRASE = pa.struct([("words", pa.list_(pa.string())), ("spans", pa.list_(pa.list_(pa.int32(), 2)))])
TEXT_COLUMNS = [
    ("number", pa.int64()),
    ("key", pa.string()),
    ("split", pa.string()),
    ("caption_id", pa.string()),
    ("text", pa.string()),
]
CAPTION_SCHEMA = described(pa.schema([*TEXT_COLUMNS, ("phrases", pa.list_(_PHRASE))]), "captions")
FAULT_SCHEMA = described(
    pa.schema(
        [
            ("source", pa.string()),
            ("line", pa.int64()),
            ("key", pa.string()),
            ("error_class", pa.string()),
            ("message", pa.string()),
        ]
    ),
    "captions",
)
_REMEDY = "Remove it and run build-phrase-vocab again."
_FORM: Form = {"configuration": OBJECT, "counts": Each(COUNT), "sha256": [TEXT], "digest": TEXT}
UNMATCHED_SCHEMA = described(pa.schema(TEXT_COLUMNS), "captions")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionStore:
    """What `captions/captions.json` says. `sha256[b]` is the digest of bucket b's file; `counts`: texts, and faults by class."""

    configuration: dict[str, Any]
    counts: dict[str, int]
    sha256: tuple[str, ...]

    @property
    def buckets(self) -> int:
        return len(self.sha256)

    @property
    def digest(self) -> str:
        return digest({"configuration": self.configuration, "sha256": list(self.sha256)})

    def save(self, store: Store) -> None:
        value: Mapping[str, Any] = asdict(self) | {
            "sha256": list(self.sha256),
            "version": layout.version("captions"),
            "digest": self.digest,
        }
        store.write_json(layout.CAPTIONS, value)

    @classmethod
    def load(cls, store: Store) -> CaptionStore:
        """Raises `IncompleteError` where no captions were parsed, `FormatVersionError`, `DamagedFileError`."""
        where = store.path(layout.CAPTIONS)
        try:
            found = store.read_json(layout.CAPTIONS, _REMEDY)
        except FileNotFoundError as error:
            raise IncompleteError(
                f"{store.root} has no parsed captions",
                f"Run `mvptr-data build-phrase-vocab CAPTIONS {store.root}` first.",
            ) from error
        layout.check_version("captions", found.get("version"), where)
        check_form(found, _FORM, where, _REMEDY)
        captions = cls(configuration=found["configuration"], counts=found["counts"], sha256=tuple(found["sha256"]))
        if captions.digest != found["digest"]:
            raise DamagedFileError(f"{where} does not have the digest it promises", _REMEDY)
        return captions


def bucket_of(key: str, buckets: int) -> int:
    """The bucket of an image key. Stable across machines and releases (CRC-32 of its UTF-8)."""
    return zlib.crc32(key.encode()) % buckets


def read_bucket(store: Store, bucket: int, sha256: str, columns: list[str] | None = None) -> pa.Table:
    """One bucket of parsed captions, its bytes checked first. Raises `DamagedFileError` where they are not `sha256`."""
    name = layout.caption_bucket(bucket)
    try:
        sound = table_sha256(store, name) == sha256
    except (FileNotFoundError, DamagedFileError):
        sound = False
    if not sound:
        raise DamagedFileError(
            f"{store.path(name)} is not the file that {layout.CAPTIONS} promises",
            f"Remove {store.path('captions')} and run build-phrase-vocab again.",
        )
    return read_table(store, name, "captions", columns)
