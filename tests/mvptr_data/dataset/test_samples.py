"""The samples of a data set in brief: written, read back, and which samples show one image."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvptr_data.dataset import layout
from mvptr_data.dataset.samples import (
    ShardSamples,
    load_image_ids,
    load_samples,
    same_images,
    samples_problem,
    write_samples,
)
from mvptr_data.dataset.tables import read_table, write_table
from mvptr_data.errors import DamagedFileError
from mvptr_data.storage import Store

shards = st.lists(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2**64 - 1)), max_size=6), max_size=140)


def brief(shard: list[tuple[int, int]]) -> ShardSamples:
    return ShardSamples(
        positions=np.arange(len(shard), dtype=np.int32),
        captions=np.array([captions for captions, _ in shard], dtype=np.int32),
        image_ids=np.array([identity for _, identity in shard], dtype=np.uint64),
    )


@given(shards)
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, given_shards: list[list[tuple[int, int]]]
) -> None:
    store = Store.at(str(tmp_path_factory.mktemp("samples")))
    made = [brief(shard) for shard in given_shards]
    entry, count = write_samples(store, made)
    manifest = {"order": entry, "shards": len(made), "samples": count}
    samples = load_samples(store, manifest)
    assert count == sum(map(len, given_shards)) == samples.at_least[0].sum()
    for number, shard in enumerate(given_shards):
        for r, found in enumerate(samples.at_least[:, number].tolist()):
            assert found == sum(captions > r for captions, _ in shard)
    assert load_image_ids(store, manifest).tolist() == [identity for shard in given_shards for _, identity in shard]
    assert samples_problem(store, manifest, made) is None


@given(st.lists(st.integers(0, 5).map(lambda n: n * 0x3333333333333333), max_size=40))
def test_samples_of_one_image_name_the_first_of_them(identities: list[int]) -> None:
    where = defaultdict(list)
    for sample, identity in enumerate(identities):
        where[identity].append(sample)
    expected = sorted((sample, found[0]) for found in where.values() if len(found) > 1 for sample in found)
    assert same_images(np.array(identities, dtype=np.uint64)).tolist() == [list(pair) for pair in expected]


def test_another_file_than_the_manifests_is_refused(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))
    entry, count = write_samples(store, [brief([(1, 7), (2, 7)])])
    manifest = {"order": entry, "shards": 1, "samples": count}
    write_samples(store, [brief([(1, 7), (3, 7)])])
    with pytest.raises(DamagedFileError, match=f"{layout.SAMPLES} is not the file its manifest names"):
        load_samples(store, manifest)
    (tmp_path / layout.SAMPLES).unlink()
    with pytest.raises(DamagedFileError, match="is missing"):
        load_samples(store, manifest)
    entry, _ = write_samples(store, [brief([(1, 7), (2, 7)])])
    with pytest.raises(DamagedFileError, match="counts 2 samples, the manifest 3"):
        load_samples(store, {"order": entry, "shards": 1, "samples": 3})
    with pytest.raises(DamagedFileError, match="does not have each of 2 shards once"):
        load_samples(store, {"order": entry, "shards": 2, "samples": 2})


def test_the_digest_names_places_captions_and_shared_images_only(tmp_path: Path) -> None:
    def digest_of(*shard: tuple[int, int]) -> str:
        return str(write_samples(Store.at(str(tmp_path)), [brief(list(shard))])[0]["digest"])

    same = digest_of((1, 7), (2, 8))
    assert digest_of((1, 5), (2, 9)) == same
    assert digest_of((1, 7), (3, 8)) != same and digest_of((1, 7), (2, 7)) != same


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        (layout.SAMPLES, {"shard": [0, 1], "at_least": [[2, 3], [1]]}, "more samples with many captions than with few"),
        (
            layout.SAMPLES,
            {"shard": [0, 1], "at_least": [[3, None], [0]]},
            "more samples with many captions than with few",
        ),
        (layout.SAMPLES, {"shard": [0, 1], "at_least": [[3, 0], [0]]}, "more samples with many captions than with few"),
        (layout.SAMPLES, {"shard": [0, 1], "at_least": [None, [3]]}, "rows without at_least"),
        (layout.SAMPLES, {"shard": [0, 1], "at_least": [[4], [-1]]}, "more samples"),
        (layout.SAMPLES, {"shard": [1, 0], "at_least": [[1], [2]]}, "each of 2 shards once"),
        (layout.SAMPLES, {"shard": [0, 1], "at_least": [[2], [2]]}, "counts 4 samples, the manifest 3"),
        (layout.IMAGE_IDS, {"image_id": [7, 7]}, "names 2 images, the manifest 3 samples"),
        (layout.IMAGE_IDS, {"image_id": [7, 7, None]}, "rows without image_id"),
        (layout.SAME_IMAGES, {"sample": [0, 3], "image": [0, 0]}, "does not name samples below 3"),
        (layout.SAME_IMAGES, {"sample": [1, 0], "image": [0, 0]}, "in their order"),
        (layout.SAME_IMAGES, {"sample": [0, 1], "image": [-1, 0]}, "does not name samples"),
        (layout.SAME_IMAGES, {"sample": [0, 1], "image": [1, 1]}, "does not name samples"),
        (layout.SAME_IMAGES, {"sample": ["0"], "image": ["0"]}, r"the column 'sample' \(string\)"),
    ],
)
def test_signed_files_that_mislead_a_reader_are_typed_errors(
    tmp_path: Path, name: str, columns: dict[str, list], message: str
) -> None:
    store = Store.at(tmp_path)
    entry, count = write_samples(store, [brief([(2, 7), (1, 7)]), brief([(1, 9)])])
    manifest = {"order": entry, "shards": 2, "samples": count}
    load_samples(store, manifest), load_image_ids(store, manifest)
    sound = read_table(store, name, "manifest").schema
    other = pa.table(columns) if isinstance(columns.get("sample", [0])[0], str) else pa.table(columns, schema=sound)
    write_table(store, name, other.replace_schema_metadata(sound.metadata))
    entry["files"][name] = store.sha256(name)
    with pytest.raises(DamagedFileError, match=f"{name} .*{message}"):
        load_samples(store, manifest), load_image_ids(store, manifest)
