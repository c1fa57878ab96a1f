"""Model-ready batches for each CPU-second, and where the time goes.

    python benchmarks/collate.py --quick
    python benchmarks/collate.py --json collate.json

A sample is 50 regions (205 kB of features, 16 attributes each) and five COCO captions, two phrases each; batches of 256, page
cache warm, one thread, tokenizing and masks included. The parts are measured by themselves, in the same rounds; what the whole
takes beyond them is the interpreter's: finding members, building lists. In brackets, what was not chosen. Needs `../shared`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from harness import Row, arguments, best_rates, report
from numpy.typing import NDArray
from tokenizers import BertWordPieceTokenizer

from mvptr_data.dataset.fields import REGIONS, TEXT, Field
from mvptr_data.dataset.records import Caption, TextPhrase, encode_regions, encode_text, geometry
from mvptr_data.dataset.shards import shard_writer
from mvptr_data.detectors import Regions
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store
from mvptr_model.batch import Batch
from mvptr_model.inputs import Collator, stacked
from mvptr_model.masking import MaskingSettings, Table, Tags, Texts, mask
from mvptr_model.stored_facts import Member, read_caption, read_regions
from mvptr_model.stream.batches import Item
from mvptr_model.stream.shard import FieldFiles, OpenShard
from mvptr_model.word_pieces import WordPieces

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
BATCH, REGIONS_PER_IMAGE, ATTRIBUTES, CAPTIONS = 256, 50, 16, 5
SIZE = {"width": 640, "height": 480}
WHOLE = "model-ready batches"


def write_field(store: Store, field: Field, members: Sequence[dict[str, bytes]], facts: dict[str, int]) -> FieldFiles:
    """One shard of a field."""
    with shard_writer(store, field, 0, configuration_digest="benchmark") as (writer, receipts):
        for number, sample in enumerate(members):
            writer.add(f"{number:08d}", sample, facts)
    tar, rows = receipts[0].tar, receipts[0].rows
    return FieldFiles(Path(store.path(tar.name)), tar.bytes, Path(store.path(rows.name)))


def some_regions(random: np.random.Generator, tags: Sequence[str], attributes: Sequence[str]) -> Regions:
    corners = np.sort(random.random((REGIONS_PER_IMAGE, 2, 2), np.float32), axis=1).reshape(-1, 4)
    shape = (REGIONS_PER_IMAGE, ATTRIBUTES)
    return Regions(
        boxes=corners * np.array([SIZE["width"], SIZE["height"]] * 2, np.float32),
        features=random.standard_normal((REGIONS_PER_IMAGE, 2048), np.float32),
        scores=np.sort(random.random(REGIONS_PER_IMAGE, np.float32))[::-1],
        labels=np.arange(1, REGIONS_PER_IMAGE + 1, dtype=np.int32),
        tags=tuple(random.choice(tags, REGIONS_PER_IMAGE).tolist()),
        attributes=tuple(map(tuple, random.choice(attributes, shape).tolist())),
        attribute_scores=tuple(map(tuple, random.random(shape, np.float32).tolist())),
    )


def caption_of(text: str) -> Caption:
    """A caption with two phrases: its second and third words, and its last two."""
    words: list[tuple[str, tuple[int, int]]] = []
    at = 0
    for word in text.split():
        at = text.index(word, at) + len(word)
        words.append((word.lower(), (at - len(word), at)))
    pairs = [tuple(zip(*pair, strict=True)) for pair in (words[1:3], words[-2:])]
    return Caption(id="0", text=text, phrases=tuple(TextPhrase(phrase=pair, spans=spans) for pair, spans in pairs))


def make_shard(store: Store, samples: int) -> tuple[OpenShard, PhraseVocabulary]:
    """A shard of random features under the detector's words, with COCO's captions, and the vocabulary of their phrases."""
    random = np.random.default_rng(0)
    names = json.loads((SHARED / "vinvl/label_map.json").read_text(encoding="utf-8"))
    tags, attributes = list(names["label_to_idx"]), list(names["attribute_to_idx"])
    coco = json.loads((SHARED / "captions/captions_val2017.json").read_text(encoding="utf-8"))
    texts = [item["caption"] for item in coco["annotations"] if len(item["caption"].split()) > 4]
    captions = [caption_of(text) for text in islice(cycle(texts), samples * CAPTIONS)]
    groups = [captions[start : start + CAPTIONS] for start in range(0, len(captions), CAPTIONS)]
    regions = [
        encode_regions(some_regions(random, tags, attributes), SIZE["width"], SIZE["height"]) for _ in range(samples)
    ]
    shard = OpenShard(
        {
            "regions": write_field(store, REGIONS, regions, {**SIZE, "regions": REGIONS_PER_IMAGE, "image_id": 1}),
            "text": write_field(
                store,
                TEXT,
                [encode_text("train", group) for group in groups],
                {"captions": CAPTIONS, "phrases": 2 * CAPTIONS},
            ),
        },
        samples=samples,
        where="the benchmark's shard",
    )
    found = {known.phrase for caption in captions for known in caption.phrases}
    return shard, PhraseVocabulary.from_counts([(words, 50) for words in found], {})


def in_torchs_memory(arrays: Sequence[NDArray[np.float16]]) -> int:
    """`stacked`, but for the memory; the number of arrays."""
    laid = torch.empty((len(arrays), REGIONS_PER_IMAGE, 2048), dtype=torch.float16)
    for row, array in zip(laid.numpy(), arrays, strict=True):
        row[:] = array
    return len(laid)


def jobs(shard: OpenShard, collate: Collator, words: WordPieces, table: Table) -> dict[str, Callable[[], object]]:
    """The whole and its parts; each does all samples of the shard."""
    samples = range(len(shard))
    batches = [range(start, start + BATCH) for start in range(0, len(shard), BATCH)]
    items = [Item(shard, nth, nth % CAPTIONS, "benchmark", 0) for nth in samples]
    regions = [Member(shard.member("regions.json", nth), "regions", "regions.json") for nth in samples]
    texts = [Member(shard.member("text.json", nth), "text", "text.json") for nth in samples]
    captions = [read_caption(member, nth % CAPTIONS).text for nth, member in enumerate(texts)]
    features = [shard.array("features.npy", nth, np.float16, 2048) for nth in samples]
    boxes = [shard.array("boxes.npy", nth, np.float32, 4) for nth in samples]
    parts = [collate.read_item(item) for item in items]
    bert = BertWordPieceTokenizer({piece: row for row, piece in enumerate(words.pieces)}, lowercase=True)

    def assembled(numbers: range) -> Batch:
        return collate.assemble([collate.read_item(items[nth]) for nth in numbers])

    def masked(batch: Batch) -> object:
        tensors = (batch.text_ids, batch.text_lengths, batch.phrase_counts, batch.phrase_pieces)
        text = Texts(*(tensor.numpy() for tensor in tensors))
        tags = Tags(batch.tag_ids.numpy(), batch.tag_of_piece.numpy())
        return mask(text, tags, np.arange(len(batch), dtype=np.uint64), table, MaskingSettings())

    made = [assembled(numbers) for numbers in batches]
    return {
        WHOLE: lambda: [len(assembled(numbers)) for numbers in batches],
        "read": lambda: [collate.read_item(item) for item in items],
        "assemble": lambda: [len(collate.assemble([parts[nth] for nth in numbers])) for numbers in batches],
        "features, copied once": lambda: [
            len(stacked([features[nth] for nth in numbers], places=REGIONS_PER_IMAGE)) for numbers in batches
        ],
        "geometry": lambda: [geometry(found, 640, 480) for found in boxes],
        "regions.json": lambda: [read_regions(member) for member in regions],
        "text.json": lambda: [read_caption(member, 0) for member in texts],
        "word pieces": lambda: [words.encode(text) for text in captions],
        "masks": lambda: [masked(batch) for batch in made],
        "(features into torch's memory)": lambda: [
            in_torchs_memory([features[nth] for nth in group]) for group in batches
        ],
        "(regions.json with json)": lambda: [json.loads(bytes(member.data)) for member in regions],
        "(word pieces with tokenizers)": lambda: [bert.encode(text).offsets for text in captions],
    }


def main() -> None:
    options = arguments(__doc__).parse_args()
    samples = BATCH if options.quick else 4 * BATCH
    words = WordPieces.load(str(SHARED / "bert/vocab.txt"))
    with tempfile.TemporaryDirectory() as folder:
        shard, phrases = make_shard(Store.at(folder), samples)
        collate = Collator(words, phrases, masking=MaskingSettings(seed=0))
        table = Table(words=words.size, phrases=len(phrases), mask=words.mask)
        work = {name: (job, float(samples)) for name, job in jobs(shard, collate, words, table).items()}
        rates = best_rates(work, rounds=3 if options.quick else 10, clock=time.process_time)
    rows = [Row(name=WHOLE, value=round(rates[WHOLE], 1), unit="samples/CPU-s")]
    rows += [Row(name=name, value=round(1e6 / rate, 1), unit="us a sample") for name, rate in rates.items()]
    report(f"{samples} samples of 205 kB, {BATCH} a batch", rows, options.json)


if __name__ == "__main__":
    main()
