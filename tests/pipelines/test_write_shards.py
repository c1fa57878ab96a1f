from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mvptr_data.dataset.captions import UNMATCHED_SCHEMA, CaptionStore
from mvptr_data.dataset.index import load_index
from mvptr_data.dataset.manifest import load_manifest
from mvptr_data.dataset.samples import ShardSamples, shard_samples
from mvptr_data.dataset.tables import write_table
from mvptr_data.errors import BusyError, ConfigurationMismatchError, IncompleteError, InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.scene_graphs import load_parser, normalize_caption
from mvptr_data.storage import Store
from mvptr_model.stream.reader import ShardReader
from pipelines import parse_captions
from pipelines import write_shards as module
from pipelines.cluster import ClusterOptions
from pipelines.describe_shards import describe_data_set
from pipelines.extract_regions import extract_regions
from pipelines.inspect_sample import load_sample
from pipelines.phrase_vocab import build_phrase_vocab
from pipelines.verify_shards import verify_shards
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


def test_captions_parsed_anew_are_matched_anew(world, data_set: Path) -> None:  # type: ignore[no-untyped-def]
    """The folder is removed, as an error about other captions advises, and the text shards are there already."""
    before = (data_set / "captions/unmatched.parquet").read_bytes()
    shutil.rmtree(data_set / "captions")
    build_phrase_vocab([str(world.captions)], str(data_set), min_sentences=2, cluster=INLINE, quiet=True)
    assert write_shards(str(data_set), cluster=INLINE, quiet=True).shards_written == 0
    assert (data_set / "captions/unmatched.parquet").read_bytes() == before


def test_unmatched_captions_of_another_match_are_not_counted(data_set: Path) -> None:
    """A run over other captions ended after matching; then the first captions came back."""
    other = pa.table({"number": [0], "key": ["x"], "split": [None], "caption_id": ["0"], "text": ["A ball."]})
    write_table(Store.at(data_set), "captions/unmatched.parquet", other.cast(UNMATCHED_SCHEMA))
    summary = write_shards(str(data_set), cluster=INLINE, quiet=True)
    assert (summary.unmatched, summary.shards_written) == (0, 0)


def test_a_vocabulary_of_other_captions_is_refused_unless_named(world, data_set: Path) -> None:  # type: ignore[no-untyped-def]
    """A run that ended between parsing and counting leaves the vocabulary of the captions before."""
    old = (data_set / "phrase_vocab.parquet").read_bytes()
    shutil.rmtree(data_set / "captions")
    captions = data_set / "other.jsonl"
    captions.write_text("".join(world.captions.read_text().splitlines(keepends=True)[1:]))
    build_phrase_vocab([str(captions)], str(data_set), min_sentences=2, cluster=INLINE, quiet=True)
    (data_set / "phrase_vocab.parquet").write_bytes(old)
    with pytest.raises(IncompleteError, match="build-phrase-vocab"):
        write_shards(str(data_set), cluster=INLINE, quiet=True)
    named = str(data_set / "phrase_vocab.parquet")
    assert write_shards(str(data_set), vocab=named, cluster=INLINE, quiet=True).samples == 10


def test_the_published_vocabulary_is_never_changed_under_its_name(
    world,  # type: ignore[no-untyped-def]
    data_set: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same phrases, counted otherwise; the run ends before it publishes."""
    build_phrase_vocab([str(world.captions)], str(data_set), min_sentences=2, cluster=INLINE, quiet=True)
    vocabulary = PhraseVocabulary.load(str(data_set / "phrase_vocab.parquet"))
    recounted = replace(vocabulary, configuration={**vocabulary.configuration, "split": "train"})
    recounted.save(Store.at(data_set), "phrase_vocab.parquet")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "_publish", stop)
        write_shards(str(data_set), cluster=INLINE, quiet=True)
    assert verify_shards(str(data_set), quiet=True).findings == ()
    write_shards(str(data_set), cluster=INLINE, quiet=True)
    with ShardReader(str(data_set)) as reader:
        assert reader.vocabulary().configuration["split"] == "train"


def test_captions_go_to_the_sound_one_of_two_images_with_a_key(world, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The first tar is cut within the picture; the second has it whole."""
    picture = sorted(world.images.glob("*.jpg"))[0]
    folder = tmp_path / "tars"
    folder.mkdir()
    for name in ("0.tar", "1.tar"):
        with tarfile.open(folder / name, "w") as tar:
            tar.add(picture, picture.name)
    (folder / "0.tar").write_bytes((folder / "0.tar").read_bytes()[:2000])
    out = str(tmp_path / "out")
    extract_regions(str(folder), out, cluster=INLINE, quiet=True)
    build_phrase_vocab([str(world.captions)], out, min_sentences=2, cluster=INLINE, quiet=True)
    assert write_shards(out, cluster=INLINE, quiet=True).samples == 1
    with ShardReader(out) as reader:
        assert reader[0].key == picture.stem and reader[0].captions
    assert load_sample(out, picture.stem).position == reader_position(out)


def reader_position(out: str) -> int:
    with ShardReader(out) as reader:
        return reader[0].position


def test_info_counts_shards_of_the_newest_generation_only(
    world,  # type: ignore[no-untyped-def]
    data_set: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build_phrase_vocab([str(world.captions)], str(data_set), min_sentences=3, cluster=INLINE, quiet=True)
    real = module.write_text_shard

    def first_only(task: module.TextTask, shard: int) -> object:
        if shard:
            raise KeyboardInterrupt
        return real(task, shard)

    monkeypatch.setattr(module, "write_text_shard", first_only)
    with pytest.raises(KeyboardInterrupt):
        write_shards(str(data_set), cluster=INLINE, quiet=True)
    text = describe_data_set(str(data_set))["fields"]["text"]
    assert (text["generation"], text["shards_done"], text["counts"]["inputs"]) == (1, 1, 4)


def test_a_retry_and_gc_that_come_between_take_nothing_away(
    world, data_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    """The receipts are read under the lock that keeps gc out, so what they name stays until it is published."""
    from pipelines.collect_garbage import collect_garbage

    for name in ("manifest.json", "index.parquet"):
        (data_set / name).unlink()
    load = CaptionStore.load

    def slow(store: Store) -> CaptionStore:
        with pytest.raises(BusyError):
            collect_garbage(str(data_set), younger_than=0)
        return load(store)

    monkeypatch.setattr(CaptionStore, "load", slow)
    assert write_shards(str(data_set), cluster=INLINE, quiet=True).samples == 11


def test_what_was_published_stays_until_all_of_the_new_is_whole(
    world,  # type: ignore[no-untyped-def]
    data_set: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gathering the samples of 10^5 shards takes minutes, in which a training may begin, and a run may be stopped."""

    def read() -> list[object]:
        with ShardReader(str(data_set)) as reader:
            return [(sample.key, sample.captions) for sample in reader]

    build_phrase_vocab([str(world.captions)], str(data_set), min_sentences=1, cluster=INLINE, quiet=True)
    before, seen = read(), []

    def stopped(store: Store, regions: str, text: str) -> ShardSamples:
        seen.append(read())
        if len(seen) == 2:
            raise KeyboardInterrupt
        return shard_samples(store, regions, text)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "shard_samples", stopped)
        write_shards(str(data_set), cluster=INLINE, quiet=True)
    assert seen == [before, before] and read() == before
    left, others = data_set / ".image_ids.parquet.1-0a.tmp", data_set / ".phrase_vocab.parquet.1-0a.tmp"
    left.write_bytes(b"a kill leaves this")
    others.write_bytes(b"under another lock")
    write_shards(str(data_set), cluster=INLINE, quiet=True)
    assert read() != before and not left.exists() and others.exists()


def test_rows_that_vanish_meanwhile_are_named(data_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def match(*arguments: object) -> int | None:
        (data_set / "regions/00001.parquet").unlink(missing_ok=True)
        return real(*arguments)  # type: ignore[arg-type]

    real = module.unmatched_captions
    monkeypatch.setattr(module, "unmatched_captions", match)
    with pytest.raises(
        IncompleteError, match=r"regions/00001\.parquet was changed by another run. Run the same command"
    ):
        write_shards(str(data_set), cluster=INLINE, quiet=True)
