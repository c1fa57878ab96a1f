"""Fields: what is stored for each sample, as which tar members and which columns.

A field is a folder of aligned shards (`regions/`, `text/`). Its configuration is stored beside it, so that no run continues
another run's work under other settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mvptr_data.dataset import forms, layout
from mvptr_data.errors import ConfigurationMismatchError, DamagedFileError
from mvptr_data.storage import Store, digest

_REMEDY = "Run `mvptr-data verify --repair`, or restore it, or write into a new folder."
_STATE: forms.Form = {
    "field": forms.TEXT,
    "configuration": forms.OBJECT,
    "generation": forms.ORDINAL,
    "digest": forms.TEXT,
}

OK = "ok"
FAULT = "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One kind of data. `members` are tar extensions in tar order; `columns` describe a sample in the shard's parquet."""

    name: str
    members: tuple[str, ...]
    columns: tuple[tuple[str, pa.DataType], ...]

    @property
    def schema(self) -> pa.Schema:
        """A row for EVERY input: its place, its fate, `columns`, and where its members lie in the tar."""
        place = [
            ("position", pa.int32()),
            ("key", pa.string()),
            ("status", pa.string()),
            ("error_class", pa.string()),
            ("message", pa.string()),
        ]
        spans = [(f"{stem(member)}_{what}", pa.int64()) for member in self.members for what in ("offset", "size")]
        return pa.schema([*place, *self.columns, *spans])

    @property
    def totals(self) -> tuple[str, ...]:
        """The columns that count something of a sample: regions; captions and phrases."""
        return tuple(name for name, _ in self.columns if name in ("regions", "captions", "phrases"))


def stem(member: str) -> str:
    """`features.npy` -> `features`: the member's name in column names."""
    return member.split(".")[0]


REGIONS = Field(
    name="regions",
    members=("boxes.npy", "features.npy", "regions.json"),
    columns=(
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("mode", pa.string()),
        ("sha256", pa.string()),
        ("image_id", pa.uint64()),
        ("regions", pa.int32()),
    ),
)
TEXT = Field(
    name="text",
    members=("text.json",),
    columns=(("split", pa.string()), ("captions", pa.int32()), ("phrases", pa.int32())),
)
FIELDS = {field.name: field for field in (REGIONS, TEXT)}


def configuration_differences(stored: Any, asked: Any, path: str = "") -> list[str]:
    """Where two JSON configurations differ, as `path: stored value -> asked value`, one line each."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        return [
            line
            for name in sorted(stored.keys() | asked.keys())
            for line in configuration_differences(stored.get(name), asked.get(name), f"{path}.{name}" if path else name)
        ]
    return [] if stored == asked else [f"{path}: {stored!r} -> {asked!r}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldState:
    """What `field.json` says: the configuration (JSON) of a field's newest generation, and that generation's number."""

    configuration: dict[str, Any]
    generation: int = 0

    @property
    def digest(self) -> str:
        return digest(self.configuration)


def load_state(store: Store, field: str) -> FieldState | None:
    """The stored state of a field, or None. Raises `FormatVersionError`, `DamagedFileError`."""
    name = layout.field_state(field)
    try:
        found = store.read_json(name, _REMEDY)
    except FileNotFoundError:
        return None
    layout.check_version("field", found.get("version"), store.path(name))
    forms.check_form(found, _STATE, store.path(name), _REMEDY)
    state = FieldState(configuration=found["configuration"], generation=found["generation"])
    if found["field"] != field:
        raise DamagedFileError(f"{store.path(name)} is of {found['field']!r}, not of {field!r}", _REMEDY)
    if found["digest"] != state.digest:
        raise DamagedFileError(f"{store.path(name)} does not have the digest it promises", _REMEDY)
    return state


def store_state(store: Store, field: str, state: FieldState) -> None:
    """Make `state` the field's."""
    value = {
        "version": layout.version("field"),
        "field": field,
        "configuration": state.configuration,
        "generation": state.generation,
    }
    store.write_json(layout.field_state(field), value | {"digest": state.digest})


def claim(store: Store, field: str, configuration: dict[str, Any]) -> FieldState:
    """The field's state, stored now where there was none.

    Raises `ConfigurationMismatchError` with the difference where the field was written under another configuration.
    """
    stored = load_state(store, field)
    if stored is None:
        store_state(store, field, stored := FieldState(configuration=configuration))
    elif differences := configuration_differences(stored.configuration, configuration):
        raise ConfigurationMismatchError(
            f"{store.root}/{field} was written under another configuration (stored -> asked): {'; '.join(differences)}",
            "Run with the stored configuration, or give another output folder.",
        )
    return stored


def claim_generation(store: Store, field: str, configuration: dict[str, Any]) -> FieldState:
    """The field's state for `configuration`: the stored one where it is the same, else a new generation, stored now.

    For fields that are cheap to write again; the files of earlier generations stay, for readers that still use them, also
    where `field.json` was removed.
    """
    stored = load_state(store, field)
    if stored is not None and stored.configuration == configuration:
        return stored
    found = [layout.generation(name.rpartition("/")[2]) for name in store.names(field)]
    last = max([-1 if stored is None else stored.generation, *(number for number in found if number is not None)])
    state = FieldState(configuration=configuration, generation=last + 1)
    store_state(store, field, state)
    return state
