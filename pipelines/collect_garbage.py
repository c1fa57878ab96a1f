"""Removing what nothing refers to any more: files of earlier generations, and what killed runs left.

A file of a field stays when a receipt or the published manifest names it. So readers of the published data set lose nothing,
and a retry that was not published yet keeps both its generations.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import FIELDS, TEXT, load_state
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.dataset.manifest import load_index, load_manifest
from mvptr_data.dataset.plan import load_plan
from mvptr_data.dataset.receipts import read_receipt
from mvptr_data.errors import IncompleteError
from mvptr_data.storage import TEMPORARY_SUFFIX, Store

#: What a field's shards are called; nothing else in its folder is ever removed.
_SHARD_FILE = re.compile(r"[0-9]{5,}(\.g[1-9][0-9]*)?\.(tar|parquet)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """Files that nothing refers to, and the bytes they take."""

    names: tuple[str, ...]
    bytes: int


def collect_garbage(out: str, *, dry_run: bool = False) -> Garbage:
    """Remove (or with `dry_run` only find) the files of `out` that neither a receipt nor the published manifest names.

    Raises `BusyError` while a run writes there, `DamagedFileError` where a receipt or the manifest cannot be read: then
    nothing is removed, since nobody can tell what is needed.
    """
    store = Store.at(out)
    load_plan(store)
    with contextlib.ExitStack() as stack:
        for field in FIELDS:
            stack.enter_context(hold_lock(store, field))
        needed = set(_published(store)) | set(_current(store))
        names = [name for field in FIELDS for name in _removable(store, field) if name not in needed]
        sizes = sum(store.size(name) or 0 for name in names)
        if not dry_run:
            for name in names:
                store.remove(name)
    return Garbage(names=tuple(names), bytes=sizes)


def _published(store: Store) -> Iterator[str]:
    try:
        manifest = load_manifest(store)
    except IncompleteError:
        return
    yield manifest["phrase_vocab"]["name"]
    for row in load_index(store, manifest):
        yield from (row.file, row.rows_file)


def _current(store: Store) -> Iterator[str]:
    """What receipts name, and the vocabulary of the text's newest generation."""
    for field in FIELDS:
        for name in store.names(field):
            shard = layout.shard_number(name.rpartition("/")[2])
            if shard is None or name != layout.receipt(field, shard):
                continue
            receipt = read_receipt(store, field, shard)
            if receipt is not None:
                yield from (receipt.tar.name, receipt.rows.name)
    state = load_state(store, TEXT.name)
    if state is not None:
        yield layout.published_vocabulary(state.generation)


def _removable(store: Store, field: str) -> Iterator[str]:
    """Shard files, published vocabularies and temporaries of a field's folder, needed or not."""
    for name in store.names(field):
        base = name.rpartition("/")[2]
        temporary = base.startswith(".") and base.endswith(TEMPORARY_SUFFIX)
        if temporary or _SHARD_FILE.fullmatch(base) or layout.is_published_vocabulary(name):
            yield name
