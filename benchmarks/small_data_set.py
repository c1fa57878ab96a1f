"""A small published data set with every kind of file there is, for the fuzzer to break."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CAPTION_SCHEMA, UNMATCHED_SCHEMA, CaptionStore
from mvptr_data.dataset.fields import FIELDS, REGIONS, TEXT, FieldState, store_state
from mvptr_data.dataset.manifest import publish, published_facts
from mvptr_data.dataset.planning import write_plan
from mvptr_data.dataset.receipts import Receipt
from mvptr_data.dataset.records import Caption, TextPhrase, encode_regions, encode_text
from mvptr_data.dataset.samples import shard_samples
from mvptr_data.dataset.shards import shard_writer
from mvptr_data.dataset.tables import described, write_table
from mvptr_data.detectors import Regions
from mvptr_data.errors import SampleFault
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.sources.images import ImageRef
from mvptr_data.storage import Store, digest
from pipelines.match_captions import unmatched_captions

SHARDS, PER_SHARD = 2, 3
PHRASES = (("red", "dog"), ("dog", "sit on", "bench"))


def build(root: Path) -> None:
    """A small published data set of every kind of file: faults, two captions a picture, two buckets, a vocabulary."""
    store, random = Store.at(root), np.random.default_rng(0)
    keys = [f"a/picture {number}" for number in range(SHARDS * PER_SHARD)]
    refs = [ImageRef(key=key, uri=f"{root}/images/{key}.png") for key in keys]
    plan = write_plan(store, refs, source={"images": f"{root}/images"}, samples_per_shard=PER_SHARD)
    vocabulary = PhraseVocabulary.from_counts([(PHRASES[0], 9), (PHRASES[1], 7)], {"min_sentences": 5})
    buckets = []
    for bucket in range(2):
        write_table(store, layout.caption_bucket(bucket), CAPTION_SCHEMA.empty_table())
        buckets.append(store.sha256(layout.caption_bucket(bucket)))
    captions = CaptionStore(
        configuration={"parser": {"name": "rules"}}, counts={"texts": 2 * len(keys)}, sha256=tuple(buckets)
    )
    captions.save(store)
    matching = described(UNMATCHED_SCHEMA, "captions", matching=digest([plan.digest, captions.digest]))
    write_table(store, layout.UNMATCHED, matching.empty_table())
    text = {
        "plan": plan.digest,
        "captions": captions.digest,
        "vocabulary": vocabulary.digest,
        "counting": dict(vocabulary.configuration),
    }
    states = {
        REGIONS.name: FieldState(configuration={"import": {"format": "features"}}),
        TEXT.name: FieldState(configuration=text),
    }
    receipts: list[Receipt] = []
    for field, state in states.items():
        store_state(store, field, state)
        for shard in range(SHARDS):
            receipts.append(_write_shard(store, field, shard, state, keys, random))
    name = layout.published_vocabulary(0)
    for file in (layout.PHRASE_VOCAB, name):
        vocabulary.save(store, file)
    publish(
        store,
        plan,
        receipts,
        configurations={field: state.configuration for field, state in states.items()},
        samples=[
            shard_samples(store, *(layout.shard_file(field, shard, 0, "parquet") for field in FIELDS))
            for shard in range(SHARDS)
        ],
        facts=published_facts(store, captions, vocabulary, name, unmatched_captions(store, plan, captions) or 0),
    )


def _write_shard(
    store: Store, field: str, shard: int, state: FieldState, keys: list[str], random: np.random.Generator
) -> Receipt:
    with shard_writer(store, FIELDS[field], shard, configuration_digest=state.digest) as (writer, receipts):
        for number, key in enumerate(keys[shard * PER_SHARD :][:PER_SHARD]):
            if field == REGIONS.name and number == 1:
                writer.add_fault(key, SampleFault("torn_image", "it breaks off"))
            elif field == REGIONS.name:
                facts = {"width": 90, "height": 80, "sha256": "0" * 64, "image_id": 7 * (number + 1), "regions": 2}
                writer.add(key, encode_regions(_regions(random), 90, 80), facts)
            else:
                known = TextPhrase(phrase=PHRASES[0], spans=((2, 5), (6, 9)))
                texts = [Caption(id=str(one), text="a red dog, \\u", phrases=(known,)) for one in range(2)]
                writer.add(key, encode_text("train", texts), {"split": "train", "captions": 2, "phrases": 2})
    return receipts[0]


def _regions(random: np.random.Generator) -> Regions:
    return Regions(
        boxes=np.array([[1, 2, 30, 40], [5, 6, 70, 80]], np.float32),
        features=random.standard_normal((2, 2048)).astype(np.float32),
        scores=np.array([0.9, 0.5], np.float32),
        labels=np.array([3, 4], np.int32),
        tags=("dog", "bench"),
        attributes=(("red",), ()),
        attribute_scores=((0.5,), ()),
    )
