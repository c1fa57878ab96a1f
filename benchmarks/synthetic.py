"""Published data sets of any size, made by the real writers from made-up samples; for benchmarks and tests of the stream."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import REGIONS, TEXT, claim
from mvptr_data.dataset.manifest import publish
from mvptr_data.dataset.plan import Plan
from mvptr_data.dataset.planning import write_plan
from mvptr_data.dataset.receipts import Receipt
from mvptr_data.dataset.records import Caption, TextPhrase, encode_regions, encode_text
from mvptr_data.dataset.samples import shard_samples
from mvptr_data.dataset.shards import shard_writer
from mvptr_data.detectors import Regions
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.sources.images import ImageRef
from mvptr_data.storage import Store
from mvptr_model.stream.batches import Item

_WORDS = tuple("a man in red shirt rides the small brown horse on green grass near old wooden fence".split())  # noqa: SIM905
#: Samples that differ; the others repeat their features, so that writing is quick.
_KINDS = 16
SIZE = (640, 480)


def write_data_set(
    root: str,
    samples: int,
    *,
    regions: int = 50,
    per_shard: int = 1000,
    captions: Callable[[int], int] = lambda _: 2,
    image: Callable[[int], int] = lambda sample: sample,
) -> None:
    """Publish a data set at `root`: `regions` regions and `captions(sample)` captions each, of the picture `image(sample)`."""
    store = Store.at(root)
    refs = (ImageRef(key=f"{sample:09d}", uri=f"/pictures/{sample:09d}.jpg") for sample in range(samples))
    plan = write_plan(store, refs, source={"images": "/pictures"}, samples_per_shard=per_shard)
    configuration = {"made": "synthetic", "regions": regions}
    states = {field.name: claim(store, field.name, configuration) for field in (REGIONS, TEXT)}
    words = tuple(("horse", word) for word in ("brown", "small"))
    vocabulary = PhraseVocabulary.from_counts([(phrase, 50) for phrase in words], {"made": "synthetic"})
    vocabulary.save(store, layout.published_vocabulary(0))
    receipts: list[Receipt] = []
    for shard, first in enumerate(range(0, samples, per_shard)):
        numbers = range(first, min(first + per_shard, samples))
        with shard_writer(store, REGIONS, shard, configuration_digest=states[REGIONS.name].digest) as (writer, done):
            for sample in numbers:
                sha256 = hashlib.sha256(b"%d" % image(sample))
                facts = {"width": SIZE[0], "height": SIZE[1], "regions": regions, "sha256": sha256.hexdigest()}
                facts["image_id"] = int.from_bytes(sha256.digest()[:8], "big")
                writer.add(f"{sample:09d}", _regions(sample % _KINDS, regions), facts)
        receipts += done
        with shard_writer(store, TEXT, shard, configuration_digest=states[TEXT.name].digest) as (writer, done):
            for sample in numbers:
                texts = [_caption(sample, number) for number in range(captions(sample))]
                facts = {"captions": len(texts), "phrases": sum(len(text.phrases) for text in texts)}
                writer.add(f"{sample:09d}", encode_text(None, texts), facts)
        receipts += done
    _publish(store, plan, receipts, configuration, vocabulary)


def _publish(
    store: Store, plan: Plan, receipts: Sequence[Receipt], configuration: dict[str, Any], vocabulary: PhraseVocabulary
) -> None:
    name = layout.published_vocabulary(0)
    publish(
        store,
        plan,
        receipts,
        configurations={field.name: configuration for field in (REGIONS, TEXT)},
        samples=(
            shard_samples(store, *(layout.shard_file(field.name, shard, 0, "parquet") for field in (REGIONS, TEXT)))
            for shard in range(plan.shards)
        ),
        facts={
            "captions": {"digest": "0" * 64, "configuration": configuration, "counts": {}, "unmatched": 0},
            "phrase_vocab": {
                "name": name,
                "sha256": store.sha256(name),
                "phrases": len(vocabulary),
                "digest": vocabulary.digest,
            },
        },
    )


@lru_cache(maxsize=2 * _KINDS)
def _regions(kind: int, count: int) -> dict[str, bytes]:
    random = np.random.default_rng(kind)
    corners = np.sort(random.integers(0, 480, (count, 2, 2)), axis=1).reshape(count, 4)
    tags = tuple(_WORDS[int(number)] for number in random.integers(0, len(_WORDS), count))
    return encode_regions(
        Regions(
            boxes=corners.astype(np.float32),
            features=random.standard_normal((count, 2048)).astype(np.float32),
            scores=np.linspace(0.9, 0.2, count, dtype=np.float32),
            labels=np.arange(1, count + 1, dtype=np.int32),
            tags=tags,
            attributes=tuple(tuple(f"such{place}" for place in range(16)) for _ in range(count)),
            attribute_scores=tuple(tuple(0.9 / (place + 1) for place in range(16)) for _ in range(count)),
        ),
        *SIZE,
    )


def _caption(sample: int, number: int) -> Caption:
    start = (sample * 7 + number) % len(_WORDS)
    words = [*_WORDS[start:], *_WORDS[:start]]
    text = " ".join(words)
    spans = tuple((text.index(word), text.index(word) + len(word)) for word in ("horse", "brown"))
    return Caption(id=str(number), text=text, phrases=(TextPhrase(phrase=("horse", "brown"), spans=spans),))


@dataclass(frozen=True)
class Names:
    """A batch that tells which samples it has: (key, caption), or None for an empty slot."""

    names: tuple[tuple[str, int] | None, ...]

    @property
    def nbytes(self) -> int:
        return 100 * len(self.names)


@dataclass(frozen=True)
class NamesOnly:
    """Collates names, or with `images` the identities of the images. It looks at features, where unsound bytes are found."""

    images: bool = False

    def read_item(self, item: Item) -> tuple[str, int] | None:
        if item.shard is None:
            return None
        item.shard.array("features.npy", item.nth, np.float16, 2048)
        name = f"{item.shard.image_ids[item.nth]:016x}" if self.images else item.shard.keys[item.nth]
        return name, item.caption

    def assemble(self, parts: Sequence[tuple[str, int] | None]) -> Names:
        return Names(tuple(parts))
