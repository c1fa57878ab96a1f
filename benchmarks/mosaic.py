"""mosaicml-streaming on the samples of `stream.py`, run by it with another Python: it needs transformers < 5.

    uv venv mosaic --python 3.11
    uv pip install --python mosaic/bin/python mosaicml-streaming "transformers<5" -e ".[train]"
    python benchmarks/stream.py --mosaic mosaic/bin/python

Its shards hold the same members as bytes, uncompressed. "bytes" fetches every sample in its shuffled order; "batches" makes the
same model-ready batches with our `Collator`, in its data loader.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import webdataset as wds
from stream import MEMBERS, ORDER, ToPart, collator, timed
from streaming import MDSWriter, StreamingDataset
from streaming.base.util import clean_stale_shared_memory
from torch.utils.data import DataLoader

from mvptr_model.inputs import Collator


def write(tars: list[str], folder: str) -> None:
    """The samples of webdataset's tars in mosaicml's own form."""
    columns = {"__key__": "str"} | dict.fromkeys(MEMBERS, "bytes")
    with MDSWriter(out=folder, columns=columns, size_limit=256 << 20) as writer:
        for sample in wds.WebDataset(tars, shardshuffle=False):
            writer.write({name: sample[name] for name in columns})


class Parts(StreamingDataset):
    """Each sample as one slot's contents."""

    def __init__(self, folder: str, collate: Collator | None) -> None:
        clean_stale_shared_memory()
        super().__init__(local=folder, shuffle=True, batch_size=ORDER.global_batch, shuffle_seed=1)
        self._to_part = ToPart(collate) if collate else None

    def __getitem__(self, at: Any) -> Any:
        sample = super().__getitem__(at)
        return sample if self._to_part is None else self._to_part(sample)


def batches(folder: str, collate: Collator, workers: int) -> Iterator[Any]:
    parts = Parts(folder, collate)
    # torch's own: the one of streaming takes batches for dictionaries or tuples.
    return iter(
        DataLoader(
            parts, batch_size=ORDER.global_batch, num_workers=workers, collate_fn=collate.assemble, drop_last=True
        )
    )


def main() -> None:
    """`mosaic.py ROOT TARS...`: prints seconds by job as JSON."""
    root, *tars = sys.argv[1:]
    collate = collator(Path(root))
    with tempfile.TemporaryDirectory() as folder:
        write(tars, folder)
        jobs = {
            "bytes: mosaicml": lambda: sum(len(sample[member]) for sample in Parts(folder, None) for member in MEMBERS),
            "batches: mosaicml, in process": lambda: sum(map(len, batches(folder, collate, 0))),
            "batches: mosaicml, 2 workers": lambda: sum(map(len, batches(folder, collate, 2))),
        }
        rounds = [{name: asdict(timed(job)) for name, job in jobs.items()} for _ in range(2)]
    found = {name: min((one[name] for one in rounds), key=lambda taken: taken["cpu"]) for name in rounds[0]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
