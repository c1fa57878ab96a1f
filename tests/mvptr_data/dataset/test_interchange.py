"""Other tools read the shards: plain webdataset, and tar itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import webdataset as wds

from mvptr_data.dataset.records import decode_array
from mvptr_data.keys import encode_key


def test_plain_webdataset_reads_every_sample(published: Path) -> None:
    for shard in range(3):
        rows = pq.read_table(published / f"regions/{shard:05d}.parquet").to_pylist()
        regions = list(wds.WebDataset(str(published / f"regions/{shard:05d}.tar"), shardshuffle=False).decode())
        text = list(wds.WebDataset(str(published / f"text/{shard:05d}.tar"), shardshuffle=False).decode())
        assert [sample["__key__"] for sample in regions] == [encode_key(row["key"]) for row in rows]
        assert [sample["__key__"] for sample in regions] == [sample["__key__"] for sample in text]
        for sample, row, words in zip(regions, rows, text, strict=True):
            assert sample["features.npy"].dtype == np.float16 and sample["features.npy"].shape == (row["regions"], 2048)
            assert sample["boxes.npy"].dtype == np.float32
            assert sample["regions.json"]["version"] == 1 and len(sample["regions.json"]["tags"]) == row["regions"]
            assert len(words["text.json"]["captions"]) >= 5


def test_tar_lists_the_members_in_order(published: Path) -> None:
    names = subprocess.run(
        ["tar", "-tf", published / "regions/00000.tar"], capture_output=True, text=True, check=True
    ).stdout.split()
    keys = [row["key"] for row in pq.read_table(published / "regions/00000.parquet").to_pylist()]
    assert names == [f"{key}.{member}" for key in keys for member in ("boxes.npy", "features.npy", "regions.json")]


def test_offsets_reach_every_member_without_a_tar_reader(published: Path) -> None:
    raw = (published / "regions/00002.tar").read_bytes()
    for row in pq.read_table(published / "regions/00002.parquet").to_pylist():
        facts = json.loads(raw[row["regions_offset"] :][: row["regions_size"]])
        boxes = decode_array(raw[row["boxes_offset"] :][: row["boxes_size"]], "boxes")
        assert len(facts["scores"]) == len(boxes) == row["regions"]
