from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mvptr_data.errors import DamagedFileError, IncompleteError
from mvptr_data.storage import Store, digest
from mvptr_model.stream.reader import ShardReader
from pipelines.cluster import ClusterOptions
from pipelines.extract_regions import extract_regions
from pipelines.phrase_vocab import build_phrase_vocab
from pipelines.write_shards import write_shards


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


def test_any_sample_by_its_number(published: Path) -> None:
    with ShardReader(str(published), open_shards=1) as reader:
        inorder = [sample.key for sample in reader]
        assert [reader[number].key for number in (10, 0, 5, 4, 10)] == [inorder[number] for number in (10, 0, 5, 4, 10)]
        for number in (-1, 11):
            with pytest.raises(IndexError, match="of 11"):
                reader[number]


def test_only_samples_with_every_field_are_there(world, published: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A text fault takes its sample out; the ones around it stay aligned."""
    out, captions = str(tmp_path / "out"), tmp_path / "captions.jsonl"
    records = [json.loads(line) for line in world.captions.read_text().splitlines()]
    captions.write_text("".join(json.dumps(record) + "\n" for record in records if record["image"] != "000005.jpg"))
    inline = ClusterOptions(cluster="inline")
    extract_regions(str(world.images), out, samples_per_shard=4, cluster=inline, quiet=True)
    build_phrase_vocab([str(captions)], out, min_sentences=2, cluster=inline, quiet=True)
    write_shards(out, cluster=inline, quiet=True)
    with ShardReader(out) as reader, ShardReader(str(published)) as whole:
        expected = [sample for sample in whole if sample.key != "000005"]
        assert len(reader) == len(expected) == 10
        for sample, other in zip(reader, expected, strict=True):
            assert (sample.key, sample.shard, sample.position) == (other.key, other.shard, other.position)
            assert [caption.text for caption in sample.captions] == [caption.text for caption in other.captions]
            np.testing.assert_array_equal(sample.features, other.features)


def test_what_is_not_published_or_torn_is_a_typed_error(data_set: Path, tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match="write-shards"):
        ShardReader(str(tmp_path / "nothing"))
    tar = data_set / "regions/00001.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    with (
        ShardReader(str(data_set)) as reader,
        pytest.raises(DamagedFileError, match=r"regions tar of shard 1 of .* has 2,000 bytes, not"),
    ):
        list(reader)
    (data_set / "regions/00001.parquet").write_bytes(b"")
    with ShardReader(str(data_set)) as reader, pytest.raises(DamagedFileError, match="00001"):
        list(reader)
    (data_set / "samples.parquet").unlink()
    with pytest.raises(DamagedFileError, match=r"samples.parquet is missing"):
        ShardReader(str(data_set))


@pytest.mark.parametrize("column", ["file", "rows_file"])
def test_an_index_leads_nobody_out_of_its_folder(data_set: Path, column: str) -> None:
    change_index(data_set, lambda rows: rows[0].update({column: f"../outside/{rows[0][column]}"}))
    with pytest.raises(DamagedFileError, match="outside"):
        ShardReader(str(data_set))


def test_a_manifest_leads_nobody_out_of_its_folder(data_set: Path) -> None:
    change_manifest(data_set, lambda manifest: manifest["phrase_vocab"].update(name="../../vocabulary.parquet"))
    with pytest.raises(DamagedFileError, match="vocabulary"):
        ShardReader(str(data_set))


def test_a_shard_that_is_missing_in_the_index_is_a_typed_error(data_set: Path) -> None:
    change_index(data_set, lambda rows: rows.pop())
    with pytest.raises(DamagedFileError, match="each shard"):
        ShardReader(str(data_set))


def test_arrays_of_another_shape_are_a_typed_error(data_set: Path) -> None:
    """Found without digests: the numbers of regions in a sample's members must agree."""
    with ShardReader(str(data_set)) as reader:
        first = reader[0]
    tar = data_set / "regions/00000.tar"
    header = f"'shape': ({len(first.boxes)}, 4)".encode()
    tar.write_bytes(tar.read_bytes().replace(header, f"'shape': (4, {len(first.boxes)})".encode(), 1))
    with ShardReader(str(data_set)) as reader, pytest.raises(DamagedFileError, match="boxes of"):
        reader[0]


def test_offsets_beyond_the_tar_are_a_typed_error(data_set: Path) -> None:
    rows = pq.read_table(data_set / "regions/00000.parquet")
    moved = [offset + 10**7 for offset in rows["features_offset"].to_pylist()]
    place = rows.column_names.index("features_offset")
    pq.write_table(rows.set_column(place, "features_offset", pa.array(moved)), data_set / "regions/00000.parquet")
    with ShardReader(str(data_set)) as reader, pytest.raises(DamagedFileError, match=r"ends inside features\.npy"):
        reader[0]


def test_arrays_are_views_that_outlive_the_reader(published: Path) -> None:
    with ShardReader(str(published), open_shards=1) as reader:
        first = reader[0].features
        expected = first.copy()
        reader[10]
    assert not first.flags.owndata and not first.flags.writeable
    np.testing.assert_array_equal(first, expected)


def test_a_remote_data_set_is_read_through_local_copies(published: Path, tmp_path: Path) -> None:
    remote = Store.at("memory://reader/scenes")
    for path in sorted(published.rglob("*")):
        if path.is_file():
            remote.write(str(path.relative_to(published)), path.read_bytes())
    with ShardReader(remote.root, cache=tmp_path) as reader, ShardReader(str(published)) as local:
        for sample, other in zip(reader, local, strict=True):
            assert (sample.key, sample.captions) == (other.key, other.captions)
            np.testing.assert_array_equal(sample.features, other.features)
    assert len([path for path in tmp_path.iterdir() if len(path.name) == 64]) == 3 * 4


def change_index(data_set: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the index's rows; its digest and the manifest's agree with it afterwards."""
    table = pq.read_table(data_set / "index.parquet")
    change(rows := table.to_pylist())
    pq.write_table(pa.Table.from_pylist(rows, table.schema), data_set / "index.parquet")
    sha256 = Store.at(data_set).sha256("index.parquet")
    change_manifest(data_set, lambda manifest: manifest["index"].update(sha256=sha256))


def change_manifest(data_set: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = Store.at(data_set).read_json("manifest.json")
    del manifest["digest"]
    change(manifest)
    Store.at(data_set).write_json("manifest.json", manifest | {"digest": digest(manifest)})
