from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from mvptr_data.dataset.manifest import load_index, load_manifest
from mvptr_data.errors import ConfigurationMismatchError, IncompleteError, InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.scene_graphs import load_parser, normalize_caption
from mvptr_data.storage import Store
from mvptr_model.stream.reader import ShardReader
from pipelines import parse_captions
from pipelines.cluster import ClusterOptions
from pipelines.extract_regions import extract_regions
from pipelines.phrase_vocab import build_phrase_vocab
from pipelines.write_shards import write_shards

INLINE = ClusterOptions(cluster="inline")


def test_every_caption_reaches_its_image_with_its_known_phrases(world, published: Path) -> None:  # type: ignore[no-untyped-def]
    vocabulary = PhraseVocabulary.load(str(published / "phrase_vocab.parquet"))
    parser = load_parser()
    with ShardReader(str(published)) as reader:
        samples = {sample.key: sample for sample in reader}
    records = [json.loads(line) for line in world.captions.read_text().splitlines()]
    assert len(records) == len(samples)
    for record in records:
        sample = samples[record["image"].removesuffix(".jpg")]
        assert [caption.text for caption in sample.captions] == [normalize_caption(text) for text in record["captions"]]
        for caption, phrases in zip(sample.captions, parser.located_phrases(record["captions"]), strict=True):
            known = {phrase.words: phrase.spans for phrase in phrases if vocabulary.rank(phrase.words) is not None}
            assert {phrase.phrase: phrase.spans for phrase in caption.phrases} == known
            order = [(phrase.spans[0][0], vocabulary.rank(phrase.phrase)) for phrase in caption.phrases]
            assert order == sorted(order)  # type: ignore[type-var]


@pytest.fixture
def uneven(world, tmp_path: Path) -> tuple[Path, Path]:  # type: ignore[no-untyped-def]
    """Images without captions, a torn image with captions, and captions without images."""
    folder, captions = tmp_path / "images", tmp_path / "captions.jsonl"
    shutil.copytree(world.images, folder)
    pictures = sorted(folder.glob("*.jpg"))
    pictures[1].write_bytes(pictures[1].read_bytes()[:3000])
    Image.open(pictures[3]).save(folder / f"{pictures[3].stem}.png")  # the same key again
    records = [json.loads(line) for line in world.captions.read_text().splitlines()]
    stranger = {"image": "stranger.jpg", "captions": ["A red ball.", "A ball."], "split": "val"}
    captions.write_text("".join(json.dumps(record) + "\n" for record in [*records[1:], stranger]))
    return folder, captions


@pytest.mark.parametrize("buckets", [1, 8])
def test_nothing_is_lost_where_inputs_are_uneven(
    uneven: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buckets: int
) -> None:
    folder, captions = uneven
    out = str(tmp_path / "out")
    if buckets > 1:
        monkeypatch.setattr(parse_captions, "BUCKET_TEXTS", 10)
    extract_regions(str(folder), out, samples_per_shard=4, split="train", cluster=INLINE, quiet=True)
    build_phrase_vocab([str(captions)], out, min_sentences=1, cluster=INLINE, quiet=True)
    summary = write_shards(out, cluster=INLINE, quiet=True)
    texts = summary.manifest["fields"]["text"]
    assert (summary.samples, summary.unmatched) == (9, 2)
    assert texts["counts"] == {"inputs": 12, "ok": 10, "no_captions": 1, "duplicate_key": 1}
    assert summary.captions + summary.unmatched == sum(
        len(json.loads(line)["captions"]) for line in captions.read_text().splitlines()
    )
    unmatched = pq.read_table(tmp_path / "out/captions/unmatched.parquet").to_pylist()
    assert [(row["key"], row["text"], row["split"]) for row in unmatched] == [
        ("stranger", "A red ball.", "val"),
        ("stranger", "A ball.", "val"),
    ]
    with ShardReader(out) as reader:
        assert len(reader) == 9 and {sample.split for sample in reader} == {"train"}


def test_a_vocabulary_of_the_authors_form_gives_a_new_generation(data_set: Path, tmp_path: Path) -> None:
    before = (data_set / "text/00000.tar").read_bytes()
    official = tmp_path / "id2phrase.json"
    vocabulary = PhraseVocabulary.load(str(data_set / "phrase_vocab.parquet"))
    official.write_text(
        json.dumps({str(30522 + 3 * number): list(words) for number, words in enumerate(vocabulary.phrases[:5])})
    )
    summary = write_shards(str(data_set), vocab=str(official), cluster=INLINE, quiet=True)
    assert summary.shards_written == 3
    assert (data_set / "text/00000.tar").read_bytes() == before
    with ShardReader(str(data_set)) as reader:
        assert reader.vocabulary().official_ids[:2] == (30522, 30525)
        assert {phrase.phrase for sample in reader for caption in sample.captions for phrase in caption.phrases} == set(
            vocabulary.phrases[:5]
        )
    again = write_shards(str(data_set), vocab=str(official), cluster=INLINE, quiet=True)
    assert again.shards_written == 0 and again.manifest == summary.manifest


def test_run_again_it_writes_nothing_and_changes_nothing(data_set: Path) -> None:
    names = ("manifest.json", "index.parquet", "text/00000.tar", "text/00000.json", "text/phrase_vocab.parquet")
    before = [(data_set / name).read_bytes() for name in names]
    assert write_shards(str(data_set), cluster=INLINE, quiet=True).shards_written == 0
    assert [(data_set / name).read_bytes() for name in names] == before


def test_the_index_names_every_file_of_every_shard(published: Path) -> None:
    store = Store.at(published)
    manifest = load_manifest(store)
    index = load_index(store, manifest)
    assert [(row.field, row.shard) for row in index] == [
        (field, shard) for field in ("regions", "text") for shard in range(3)
    ]
    for row in index:
        assert (store.size(row.file), store.sha256(row.file)) == (row.bytes, row.sha256)
        assert store.sha256(row.rows_file) == row.rows_sha256
    assert manifest["samples"] == manifest["images"] == 11


def test_unfinished_steps_are_named(world, published: Path, data_set: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(IncompleteError, match="extract-regions"):
        write_shards(str(tmp_path / "nothing"), cluster=INLINE, quiet=True)
    assert not (tmp_path / "nothing").exists()
    (data_set / "regions/00001.json").unlink()
    with pytest.raises(IncompleteError, match="1 of 3 regions shards"):
        write_shards(str(data_set), cluster=INLINE, quiet=True)
    extract_regions(str(world.images), str(tmp_path / "out"), samples_per_shard=4, cluster=INLINE, quiet=True)
    with pytest.raises(IncompleteError, match="build-phrase-vocab"):
        write_shards(str(tmp_path / "out"), cluster=INLINE, quiet=True)
    with pytest.raises(InputError, match="no phrase vocabulary"):
        write_shards(str(published), vocab=str(tmp_path / "none.parquet"), cluster=INLINE, quiet=True)


def test_a_data_set_may_be_moved(data_set: Path, tmp_path: Path, world, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    moved = tmp_path / "moved"
    data_set.rename(moved)
    monkeypatch.chdir(tmp_path)
    assert write_shards("moved", cluster=INLINE, quiet=True).samples == 11
    with pytest.raises(ConfigurationMismatchError, match="images"):
        extract_regions(str(tmp_path), "moved", samples_per_shard=4, cluster=INLINE, quiet=True)
