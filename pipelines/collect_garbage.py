"""Removing what nothing refers to any more: files of earlier generations, and what killed runs left.

A file of a field stays when a receipt or the published manifest names it. So readers of the published data set lose nothing,
and a retry that was not published yet keeps both its generations. Young files stay too: a worker of a cluster may outlive its
client, and the client's lock, by the shard that it is writing.
"""

from __future__ import annotations

import contextlib
import errno
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec.core

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import FIELDS, TEXT, load_state
from mvptr_data.dataset.index import load_index
from mvptr_data.dataset.locks import hold_lock, keep_out
from mvptr_data.dataset.manifest import load_manifest
from mvptr_data.dataset.plan import load_plan
from mvptr_data.dataset.receipts import read_receipt
from mvptr_data.errors import IncompleteError
from mvptr_data.storage import TEMPORARY_SUFFIX, Store

#: What a field's shards are called; nothing else in its folder is ever removed.
_SHARD_FILE = re.compile(r"[0-9]{5,}(\.g[1-9][0-9]*)?\.(tar|parquet)")


#: Seconds that a file is left alone after it was written last: no task that outlived its client writes for longer.
YOUNG = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """Files that nothing refers to, and the bytes they take.

    `young`: how many more there are that were written lately, and stay. `ageless`: how many of `names` are on a store that
    does not say when they were written.
    """

    names: tuple[str, ...]
    bytes: int
    young: int = 0
    ageless: int = 0


def collect_garbage(out: str, *, dry_run: bool = False, younger_than: float = YOUNG) -> Garbage:
    """Remove (or with `dry_run` only find) the files of `out` that neither a receipt nor the published manifest names.

    What was written less than `younger_than` seconds ago stays. `dry_run` takes no lock and writes nothing, so it works on a
    read-only disk and beside a run.

    Raises `BusyError` while a run writes there, `DamagedFileError` where a receipt or the manifest cannot be read: then
    nothing is removed, since nobody can tell what is needed.
    """
    store = Store.at(out)
    load_plan(store)
    if dry_run:
        return _find(store, younger_than)
    with _locked(store) as check:
        garbage = _find(store, younger_than)
        for name in garbage.names:
            check()
            store.remove(name)
    return garbage


@contextlib.contextmanager
def _locked(store: Store) -> Iterator[Callable[[], None]]:
    """Nobody writes a field of `store` during the block; gives what raises when somebody does after all.

    A lock is a file, and this is the one command that makes room on a full disk. Where there is no room for its own locks, it
    keeps others from taking theirs by the file system's lock alone, which needs none; live holders are respected all the same.
    """
    with contextlib.ExitStack() as stack:
        try:
            held = [stack.enter_context(hold_lock(store, field)) for field in FIELDS]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not store.is_local:
                raise
            stack.close()  # of two locks, one may have found room; it would be taken for another process's
            stack.enter_context(keep_out(store, FIELDS))
            held = []

        def check() -> None:
            for lock in held:
                lock.check()

        yield check


def _find(store: Store, younger_than: float) -> Garbage:
    # What is needed first: a shard that a task finishes meanwhile is then unneeded, but young.
    needed = set(_published(store)) | set(_current(store))
    names, young, ageless = [], 0, 0
    for name in (name for field in FIELDS for name in _removable(store, field)):
        if name in needed:
            continue
        try:
            written = _written(store, name) if younger_than > 0 else 0.0
        except FileNotFoundError:
            continue  # a temporary that has got its name meanwhile
        if written is not None and time.time() - written < younger_than:
            young += 1
            continue
        names.append(name)
        ageless += written is None
    sizes = sum(store.size(name) or 0 for name in names)
    return Garbage(names=tuple(names), bytes=sizes, young=young, ageless=ageless)


def _written(store: Store, name: str) -> float | None:
    """When a file was written last, in seconds of the epoch; None where the store does not say. Raises `FileNotFoundError`."""
    if store.is_local:
        return Path(store.path(name)).stat().st_mtime
    filesystem, path = fsspec.core.url_to_fs(store.path(name))
    try:
        return float(filesystem.modified(path).timestamp())
    except (NotImplementedError, AttributeError, KeyError):  # what backends without times do
        return None


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
