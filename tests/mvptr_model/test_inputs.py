"""Shape legend: n samples, T places of a text, P phrases of a text, G places of a tag sequence, R regions of an image."""

from __future__ import annotations

import dataclasses
import pickle
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvptr_data.dataset.fields import REGIONS, TEXT, Field
from mvptr_data.dataset.records import Caption, TextPhrase, encode_regions, encode_text, geometry
from mvptr_data.dataset.shards import shard_writer
from mvptr_data.detectors import Regions
from mvptr_data.errors import DamagedFileError, FormatVersionError, InputError, MvptrError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store
from mvptr_model.batch import Batch
from mvptr_model.inputs import Collator, InputSettings
from mvptr_model.masking import IGNORED, MaskingSettings
from mvptr_model.sequences import bounds
from mvptr_model.stream.batches import NO_ITEM, Item
from mvptr_model.stream.reader import ShardReader
from mvptr_model.stream.shard import FieldFiles, OpenShard
from mvptr_model.word_pieces import WordPieces
from tests.pretend_cuda import pretend_cuda

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "man",
    "ride",
    "wave",
    "surf",
    "##board",
    "on",
    "fire",
    "hydrant",
]
WORDS = WordPieces([*PIECES, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)])
PHRASES = PhraseVocabulary(
    phrases=(("man", "ride", "wave"), ("wave", "big"), *((letter, "big") for letter in string.ascii_lowercase)),
    sentences=(50,) * 28,
    official_ids=(None,) * 28,
    configuration={},
)
NO_MASKS = Collator(WORDS, PHRASES)
SIZE = (200, 100)


def rows(text: str) -> list[int]:
    return WORDS.encode(text).ids


def some_regions(tags: Sequence[str], seed: int = 0) -> Regions:
    random, count = np.random.default_rng(seed), len(tags)
    return Regions(
        boxes=np.sort(random.random((count, 2, 2), np.float32), axis=1).reshape(-1, 4) * np.float32(100),
        features=random.standard_normal((count, 2048), np.float32),
        scores=np.linspace(0.9, 0.1, count, dtype=np.float32),
        labels=np.arange(1, count + 1, dtype=np.int32),
        tags=tuple(tags),
        attributes=(("red",),) * count,
        attribute_scores=((0.5,),) * count,
    )


def members(
    tags: Sequence[str] = ("man",), captions: Sequence[Caption] = (), gold: Sequence[str] | None = None, seed: int = 0
) -> dict[str, bytes]:
    """The members of one sample."""
    stored = captions or [Caption(id="1", text="man", phrases=())]
    return encode_regions(some_regions(tags, seed), *SIZE, gold) | encode_text("train", stored)


def make_shard(folder: Path, samples: Sequence[dict[str, bytes]]) -> OpenShard:
    """A shard of `members`."""

    def write(field: Field, facts: dict[str, int]) -> FieldFiles:
        store = Store.at(folder)
        with shard_writer(store, field, 0, configuration_digest="test") as (writer, receipts):
            for number, sample in enumerate(samples):
                own = {"image_id": 2**64 - 1 - number} if field is REGIONS else {}
                writer.add(f"a/{number}", {name: sample[name] for name in field.members}, facts | own)
        tar, parquet = receipts[0].tar, receipts[0].rows
        return FieldFiles(folder / tar.name, tar.bytes, folder / parquet.name)

    files = {"regions": write(REGIONS, {"regions": 1}), "text": write(TEXT, {"captions": 1, "phrases": 0})}
    return OpenShard(files, samples=len(samples), where="the shard")


def item(shard: OpenShard, nth: int = 0, caption: int = 0, epoch: int = 0) -> Item:
    return Item(shard, nth, caption, "d" * 64, epoch)


def collated(collate: Collator, items: Sequence[Item]) -> Batch:
    return collate.assemble([collate.read_item(each) for each in items])


def phrase(words: str, *spans: tuple[int, int]) -> TextPhrase:
    return TextPhrase(phrase=tuple(words.split()), spans=spans)


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


def assert_equal(found: Batch, expected: Batch) -> None:
    for name, value in tensors(expected).items():
        other = tensors(found)[name]
        assert other.dtype == value.dtype and torch.equal(other, value), name


RIDES = Caption(
    id="1",
    text="A man rides a 😀 big wave",
    phrases=(
        phrase("man ride wave", (2, 5), (6, 11), (20, 24)),
        phrase("unknown thing", (2, 5)),
        phrase("wave big", (20, 24), (16, 19)),
    ),
)


def test_a_text_is_words_then_known_phrases(tmp_path: Path) -> None:
    batch = collated(NO_MASKS, [item(make_shard(tmp_path, [members(captions=[RIDES])]))])
    words = [*rows("a"), WORDS.pieces.index("man"), *rows("rides a"), WORDS.pieces.index("[UNK]"), *rows("big wave")]
    expected = [WORDS.cls, *words, WORDS.size + 0, WORDS.size + 1, WORDS.sep]
    assert batch.text_ids.tolist() == [expected + [WORDS.pad] * (40 - len(expected))]
    assert (batch.text_lengths.tolist(), batch.phrase_counts.tolist()) == ([len(expected)], [2])
    assert batch.text_mask[0].tolist() == [True] * len(expected) + [False] * (40 - len(expected))
    covered = [[WORDS.pieces[row] for row in batch.text_ids[0, places]] for places in batch.phrase_pieces[0]]
    assert covered == [["man", "ride", "##s", "wave"], ["b", "##i", "##g", "wave"], [], [], []]


@pytest.mark.parametrize(("preset", "kept"), [("paper", 5), ("official", 12)])
def test_limits_of_a_text(tmp_path: Path, preset: Any, kept: int) -> None:
    """26 word pieces leave room for 12 phrases in `official`, in `paper` there are never more than 5."""
    letters = " ".join(string.ascii_lowercase)
    phrases = tuple(phrase(f"{letter} big", (2 * n, 2 * n + 1)) for n, letter in enumerate(string.ascii_lowercase))
    long = Caption(id="1", text=f"{letters} {letters}", phrases=phrases)
    short = Caption(id="2", text=letters, phrases=phrases)
    shard = make_shard(tmp_path, [members(captions=[long, short])])
    batch = collated(Collator(WORDS, PHRASES, InputSettings(preset=preset)), [item(shard, 0, 0), item(shard, 0, 1)])
    assert batch.phrase_counts.tolist() == [5, kept]
    assert batch.text_lengths.tolist() == [40, 28 + kept]
    assert batch.text_ids[0].tolist() == [
        *[WORDS.cls, *rows(f"{letters} {letters}")[:33]],
        *[WORDS.size + 2 + number for number in range(5)],
        WORDS.sep,
    ]
    for number in range(kept):
        assert np.flatnonzero(batch.phrase_pieces[1, number]).tolist() == [1 + number]


def test_a_phrase_whose_words_were_cut_off_has_no_pieces(tmp_path: Path) -> None:
    caption = Caption(id="1", text="man man wave", phrases=(phrase("man ride wave", (8, 12)),))
    collate = Collator(WORDS, PHRASES, InputSettings(max_words=4, max_phrases=1))
    batch = collated(collate, [item(make_shard(tmp_path, [members(captions=[caption])]))])
    assert batch.text_ids.tolist() == [[WORDS.cls, *rows("man man"), WORDS.size, WORDS.sep]]
    assert not batch.phrase_pieces.any()


def test_tags_are_class_names_once_each_lower_cased_in_pieces(tmp_path: Path) -> None:
    predicted = ["Surfboard", "man", "Surfboard", "fire hydrant", "man"]
    shard = make_shard(tmp_path, [members(predicted), members(predicted, gold=["wave", "wave"]), members(gold=[])])
    batch = collated(NO_MASKS, [item(shard, nth) for nth in range(3)])
    wanted = [rows("surfboard man fire hydrant"), rows("wave"), []]
    assert [ids[:length].tolist() for ids, length in zip(batch.tag_ids, batch.tag_lengths, strict=True)] == [
        [WORDS.cls, *ids, WORDS.sep] for ids in wanted
    ]
    assert batch.tag_of_piece[0, :8].tolist() == [-1, 0, 0, 1, 2, 2, -1, -1]
    assert batch.tag_mask.sum(dim=1).tolist() == batch.tag_lengths.tolist() == [7, 3, 2]


def test_tag_sequences_are_cut_at_their_limit(tmp_path: Path) -> None:
    tags = [f"{letter}{letter}" for letter in string.ascii_lowercase]
    batch = collated(NO_MASKS, [item(make_shard(tmp_path, [members(tags)]))])
    assert batch.tag_ids[0].tolist() == [WORDS.cls, *rows(" ".join(tags))[:18], WORDS.sep]
    assert batch.tag_of_piece[0].tolist() == [-1, *np.repeat(np.arange(9), 2), -1]


@pytest.mark.parametrize("packed", [False, True])
def test_regions_are_the_stored_ones_the_first_fifty(tmp_path: Path, packed: bool) -> None:
    counts = [60, 2, 0, 50, 1]
    shard = make_shard(tmp_path, [members(["man"] * count, seed=count) for count in counts])
    batch = collated(Collator(WORDS, PHRASES, InputSettings(packed=packed)), [item(shard, n) for n in range(5)])
    assert batch.region_counts.tolist() == [50, 2, 0, 50, 1]
    assert (batch.features.dtype, batch.geometry.dtype) == (torch.float16, torch.float32)
    for number, count in enumerate(counts):
        stored, kept = some_regions(["man"] * count, count), min(count, 50)
        if packed:
            first, last = bounds(batch.region_counts)[number : number + 2].tolist()
            features, boxes = batch.features[first:last], batch.geometry[first:last]
        else:
            features, boxes = batch.features[number, :kept], batch.geometry[number, :kept]
            assert not batch.features[number, kept:].any() and not batch.geometry[number, kept:].any()
            assert batch.region_mask[number].tolist() == [True] * kept + [False] * (50 - kept)
        np.testing.assert_array_equal(features.numpy(), stored.features[:50].astype(np.float16))
        np.testing.assert_array_equal(boxes.numpy(), geometry(stored.boxes[:50], *SIZE))
    batch.features[:] = 0  # a copy: the shard keeps its bytes
    assert shard.array("features.npy", 1, np.float16, 2048).any()


def test_identities_and_weights(tmp_path: Path) -> None:
    shard = make_shard(tmp_path, [members(), members()])
    batch = collated(NO_MASKS, [item(shard, 1), NO_ITEM, item(shard, 0)])
    assert len(batch) == 3 and batch.weights.tolist() == [1, 0, 1]
    assert (batch.image_ids.dtype, batch.weights.dtype) == (torch.int64, torch.float32)
    assert batch.image_ids.tolist() == [-2, 0, -1]  # 2**64 - 2 and 2**64 - 1, bit for bit


@pytest.mark.parametrize("packed", [False, True])
def test_an_empty_slot_is_two_special_tokens(packed: bool) -> None:
    settings = InputSettings(packed=packed)
    for collate in (Collator(WORDS, PHRASES, settings), Collator(WORDS, PHRASES, settings, MaskingSettings(words=1.0))):
        batch = collated(collate, [NO_ITEM, NO_ITEM])
        assert batch.weights.tolist() == [0, 0]
        assert batch.text_ids[batch.text_mask if not packed else slice(None)].tolist() == [WORDS.cls, WORDS.sep] * 2
        assert batch.tag_ids[batch.tag_mask if not packed else slice(None)].tolist() == [WORDS.cls, WORDS.sep] * 2
        assert batch.region_counts.tolist() == batch.phrase_counts.tolist() == [0, 0]
        for labels in (batch.word_labels, batch.phrase_labels, batch.tag_labels):
            assert (labels == IGNORED).all()


texts = st.lists(st.sampled_from(["man", "ride", "wave", "surfboard", "é", "-", "big"]), max_size=40).map(" ".join)
samples = st.builds(
    lambda text, tags, spans: members(
        tags, [Caption(id="1", text=text, phrases=tuple(phrase("wave big", (a, b)) for a, b in spans))]
    ),
    texts,
    st.lists(st.sampled_from(["man", "wave", "fire hydrant"]), max_size=3),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=7),
)


@settings(max_examples=30)  # each writes a shard
@given(
    stored=st.lists(samples, min_size=1, max_size=5),
    empty=st.integers(0, 5),
    preset=st.sampled_from(["paper", "official"]),
)
def test_packed_is_padded_without_the_padding(
    tmp_path_factory: pytest.TempPathFactory, stored: list[dict[str, bytes]], empty: int, preset: Any
) -> None:
    shard = make_shard(tmp_path_factory.mktemp("shard"), stored)
    items = [item(shard, nth) for nth in range(len(stored))]
    items.insert(empty, NO_ITEM)
    padded, packed = (
        collated(Collator(WORDS, PHRASES, InputSettings(preset=preset, packed=form), MaskingSettings()), items)
        for form in (False, True)
    )
    assert packed.packed and not padded.packed
    within = torch.arange(padded.phrase_pieces.shape[1]) < padded.phrase_counts[:, None]
    masks = {"text_ids": padded.text_mask, "word_labels": padded.text_mask, "phrase_labels": padded.text_mask}
    masks |= {"tag_ids": padded.tag_mask, "tag_labels": padded.tag_mask, "tag_of_piece": padded.tag_mask}
    masks |= {"features": padded.region_mask, "geometry": padded.region_mask, "phrase_pieces": within}
    for name, value in tensors(padded).items():
        assert torch.equal(tensors(packed)[name], value[masks[name]] if name in masks else value), name
    for lengths in (packed.text_lengths, packed.tag_lengths, packed.region_counts):
        ends = bounds(lengths)
        assert torch.equal(ends.diff(), lengths) and ends[0] == 0
    assert packed.nbytes < padded.nbytes


@settings(max_examples=30)
@given(stored=st.lists(samples, min_size=1, max_size=5), seed=st.integers(0, 3))
def test_a_sample_is_the_same_in_any_batch(
    tmp_path_factory: pytest.TempPathFactory, stored: list[dict[str, bytes]], seed: int
) -> None:
    collate = Collator(WORDS, PHRASES, masking=MaskingSettings(seed=seed))
    shard = make_shard(tmp_path_factory.mktemp("shard"), stored)
    items = [item(shard, nth) for nth in range(len(stored))]
    together = collated(collate, items)
    for number, one in enumerate(items):
        alone = collated(pickle.loads(pickle.dumps(collate)), [one])
        for name, value in tensors(alone).items():
            assert torch.equal(value[0], tensors(together)[name][number]), name


def test_masks_follow_seed_epoch_and_caption(tmp_path: Path) -> None:
    text = " ".join(string.ascii_lowercase)
    captions = [Caption(id=name, text=text, phrases=()) for name in "12"]
    shard = make_shard(tmp_path, [members(captions=captions), members(captions=captions)])

    def labels(seed: int = 0, **of: int) -> list[list[int]]:
        collate = Collator(WORDS, PHRASES, masking=MaskingSettings(seed=seed))
        return collated(collate, [item(shard, **of)]).word_labels.tolist()

    found = [labels(), labels(seed=1), labels(epoch=1), labels(caption=1), labels(nth=1)]
    assert len({str(one) for one in found}) == len(found)
    assert labels() == found[0]
    assert (torch.tensor(found) != IGNORED).any(dim=-1).all()


def test_a_batch_travels(tmp_path: Path) -> None:
    batch = collated(NO_MASKS, [item(make_shard(tmp_path, [members()]))])
    assert_equal(pickle.loads(pickle.dumps(batch)), batch)
    assert_equal(batch.placed(torch.device("cpu")), batch)
    assert {value.device.type for value in tensors(batch.to("meta")).values()} == {"meta"}
    assert batch.nbytes == sum(value.numel() * value.element_size() for value in tensors(batch).values())


def test_what_is_computed_with_goes_to_the_device_and_nobody_waits(tmp_path: Path) -> None:
    batch = collated(NO_MASKS, [item(make_shard(tmp_path, [members(), members(["wave"] * 3)]))])
    with pretend_cuda() as device:
        pinned = batch.pin_memory()
        placed = pinned.placed(torch.device("cuda"))
        assert not device.waits
        there = {name for name, value in tensors(placed).items() if value.device.type == "cuda"}
        assert there == {"features", "geometry", "image_ids", "weights"}
        assert {name for name, value in tensors(pinned).items() if value.is_pinned()} == there
        assert_equal(placed.to("cpu"), batch)
        everywhere = batch.to("cuda")
        assert {value.device.type for value in tensors(everywhere).values()} == {"cuda"}
        assert_equal(everywhere.placed(torch.device("cuda")).to("cpu"), batch)


@pytest.mark.parametrize(
    ("member", "change", "error"),
    [
        ("regions.json", lambda data: data[:-9], DamagedFileError),
        ("regions.json", lambda data: data.replace(b'"version":1', b'"version":9'), FormatVersionError),
        ("regions.json", lambda data: data.replace(b'["man"]', b'["man","man"]'), DamagedFileError),
        ("text.json", lambda data: b"", DamagedFileError),
        ("text.json", lambda data: data.replace(b'"version":1', b'"version":9'), FormatVersionError),
        ("text.json", lambda data: data.replace(b'"text"', b'"test"'), DamagedFileError),
        ("boxes.npy", lambda data: data.replace(b"(1, 4)", b"(4, 1)"), DamagedFileError),
        ("boxes.npy", lambda data: data[:-4], DamagedFileError),
        ("features.npy", lambda data: data.replace(b"<f2", b"<i2"), DamagedFileError),
        ("features.npy", lambda data: b"\xff" + data[1:], DamagedFileError),
    ],
)
def test_unsound_bytes_are_typed_errors_that_name_the_sample(
    tmp_path: Path, member: str, change: Callable[[bytes], bytes], error: type[MvptrError]
) -> None:
    bad = members()
    changed = change(bad[member])
    assert changed != bad[member]
    shard = make_shard(tmp_path, [members(), bad | {member: changed}, members()])
    with pytest.raises(error, match=r"the shard sample 'a/1'"):
        NO_MASKS.read_item(item(shard, 1))
    # The others are unharmed, and its slot may be left empty.
    assert collated(NO_MASKS, [item(shard, 0), NO_ITEM, item(shard, 2)]).weights.tolist() == [1, 0, 1]


def test_a_caption_that_is_not_there_is_a_typed_error(tmp_path: Path) -> None:
    shard = make_shard(tmp_path, [members()])
    with pytest.raises(DamagedFileError, match="has 1 captions, not number 3"):
        NO_MASKS.read_item(item(shard, caption=3))


@pytest.mark.parametrize(
    "wrong", [{"max_words": 1}, {"max_tags": 0}, {"max_phrases": 0}, {"max_regions": -1}, {"preset": "other"}]
)
def test_impossible_settings_are_typed_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is"):
        InputSettings(**wrong)


def test_a_published_data_set_is_ready_for_a_model(published: Path) -> None:
    """What the real pipelines wrote, every sample, against the reader's own view of it."""
    with ShardReader(str(published)) as reader:
        vocabulary = reader.vocabulary()
        collate = Collator(WORDS, vocabulary)
        items = [item(reader.shard(shard), nth) for shard, nth in map(reader.place, range(len(reader)))]
        batch = collated(collate, items)
        for number, sample in enumerate(reader):
            caption, count = sample.captions[0], len(sample.features)
            assert int(batch.region_counts[number]) == count
            np.testing.assert_array_equal(batch.features[number, :count].numpy(), sample.features)
            np.testing.assert_array_equal(batch.geometry[number, :count].numpy(), sample.geometry)
            assert int(batch.image_ids[number]) == np.uint64(sample.image_id).astype(np.int64)
            kept = caption.phrases[:5]
            end = int(batch.text_lengths[number]) - 1
            ranks = (batch.text_ids[number, end - len(kept) : end] - WORDS.size).tolist()
            assert [vocabulary.phrases[rank] for rank in ranks] == [known.phrase for known in kept]
            assert batch.phrase_pieces[number, : len(kept)].any(dim=1).all()
