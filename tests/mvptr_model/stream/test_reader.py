from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mvptr_data.errors import DamagedFileError, IncompleteError
from mvptr_model.stream import reader as module
from mvptr_model.stream.reader import ShardReader


def test_samples_are_aligned_and_typed(published: Path) -> None:
    with ShardReader(str(published)) as reader:
        samples = list(reader)
        assert [(sample.shard, sample.position) for sample in samples] == [(n // 4, n % 4) for n in range(11)]
        for sample in samples:
            count = len(sample.regions.tags)
            assert sample.features.dtype == np.float16 and sample.features.shape == (count, 2048)
            assert sample.boxes.dtype == np.float32 and sample.boxes.shape == (count, 4)
            assert sample.geometry.shape == (count, 6) and (sample.geometry >= 0).all() and (sample.geometry <= 1).all()
            assert (sample.regions.width, sample.regions.height) == (256, 256)
            assert len(sample.captions) >= 5
            for caption in sample.captions:
                for phrase in caption.phrases:
                    assert all(caption.text[start:end].strip() for start, end in phrase.spans)
        assert len({sample.image_id for sample in samples}) == 11


def test_any_sample_by_its_number(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_SHARDS", 1)
    with ShardReader(str(published)) as reader:
        inorder = [sample.key for sample in reader]
        assert [reader[number].key for number in (10, 0, 5, 4, 10)] == [inorder[number] for number in (10, 0, 5, 4, 10)]
        for number in (-1, 11):
            with pytest.raises(IndexError, match="of 11"):
                reader[number]


def test_only_samples_with_every_field_are_there(data_set: Path) -> None:
    """A text fault takes its sample out; the ones around it stay aligned."""
    from mvptr_data.dataset.receipts import read_receipt
    from mvptr_data.storage import Store

    with ShardReader(str(data_set)) as reader:
        keys = [sample.key for sample in reader]
    receipt = read_receipt(Store.at(data_set), "text", 0)
    assert receipt is not None and receipt.counts["ok"] == 4 and len(keys) == 11


def test_what_is_not_published_or_torn_is_a_typed_error(data_set: Path, tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match="write-shards"):
        ShardReader(str(tmp_path / "nothing"))
    tar = data_set / "regions/00001.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    with ShardReader(str(data_set)) as reader, pytest.raises(DamagedFileError, match="regions tar ends inside"):
        list(reader)
    (data_set / "regions/00001.parquet").write_bytes(b"")
    with pytest.raises(DamagedFileError, match="00001"):
        ShardReader(str(data_set))
