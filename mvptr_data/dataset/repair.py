"""Making again what says what a data set is, from what the data set holds: a shard's receipt, a field's state.

Nothing is taken on trust: a receipt is made again only where the shard's parquet has the plan's keys and its tar is, byte for
byte, the members that the parquet names, each of them sound. A bit that flipped within a feature cannot be seen then, which is
why the receipt says that it was made again.
"""

from __future__ import annotations

from typing import Any

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import FIELDS, TEXT, FieldState
from mvptr_data.dataset.index import IndexRow, index_row
from mvptr_data.dataset.receipts import FileFacts, Receipt
from mvptr_data.dataset.shards import counted, read_rows
from mvptr_data.dataset.verify import Finding, KnownPhrase, verify_contents
from mvptr_data.errors import DamagedFileError
from mvptr_data.storage import Store
from mvptr_data.version import __version__


def rebuilt_receipt(
    store: Store, field: str, shard: int, state: FieldState, known_phrase: KnownPhrase, published: IndexRow | None
) -> Receipt | Finding:
    """The receipt that a shard's newest tar and parquet stand for; what is wrong with them where they stand for none.

    `published`: what a sound index says of the shard; files of that generation must have the digests it promises. The receipt
    is equal to the one that was written with the shard, but for its seconds and environment. Nothing is written.

    Raises `FormatVersionError` where the parquet was written by another release.
    """
    name = layout.receipt(field, shard)
    generation = newest_generation(store, field, shard, state)
    if generation is None:
        return Finding(kind="receipt", file=name, message="neither a receipt nor a tar with its parquet is there")
    try:
        receipt = _receipt_of(store, field, shard, generation, state)
    except DamagedFileError as error:
        return Finding(kind="damaged", file=name, message=error.message)
    row = index_row(receipt)
    if published is not None and published.generation == generation and row != published:
        return Finding(
            kind="digest", file=name, message="no receipt, and the files are not those that the index promises"
        )
    findings = verify_contents(store, row, known_phrase)
    return findings[0] if findings else receipt


def newest_generation(store: Store, field: str, shard: int, state: FieldState) -> int | None:
    """The newest generation of a shard that has both files. Text is of its field's generation, or unfinished."""
    found = [state.generation] if field == TEXT.name else _generations(store, field, shard)
    whole = [
        number
        for number in found
        if all(store.size(layout.shard_file(field, shard, number, suffix)) is not None for suffix in ("tar", "parquet"))
    ]
    return max(whole, default=None)


def _generations(store: Store, field: str, shard: int) -> list[int]:
    names = (name.rpartition("/")[2] for name in store.names(field))
    found = {layout.generation(name) for name in names if layout.shard_number(name) == shard}
    return [number for number in found if number is not None]


def _receipt_of(store: Store, field: str, shard: int, generation: int, state: FieldState) -> Receipt:
    tar, rows = (_facts(store, layout.shard_file(field, shard, generation, suffix)) for suffix in ("tar", "parquet"))
    counts, totals = counted(FIELDS[field], read_rows(store, rows.name))
    return Receipt(
        field=field,
        shard=shard,
        generation=generation,
        configuration_digest=state.digest,
        tar=tar,
        rows=rows,
        counts=counts,
        totals=totals,
        environment={"rebuilt": f"mvptr-data {__version__}"},
    )


def _facts(store: Store, name: str) -> FileFacts:
    return FileFacts(name=name, bytes=store.size(name) or 0, sha256=store.sha256(name))


def published_state(manifest: dict[str, Any], field: str) -> FieldState:
    """The state of a field that a sound manifest was published from."""
    generation = layout.vocabulary_generation(manifest["phrase_vocab"]["name"]) if field == TEXT.name else 0
    return FieldState(configuration=manifest["fields"][field]["configuration"], generation=generation or 0)
