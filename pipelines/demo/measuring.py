"""What the data set says against what was drawn, and what the model learned against chance and itself untrained."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mvptr_data.abstract_scenes import Scene
from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CaptionStore
from mvptr_data.dataset.tables import read_table
from mvptr_data.detectors.compact.evaluation import match, overlaps
from mvptr_data.phrases import PhraseWords
from mvptr_data.storage import Store
from mvptr_model.evaluation.grounding import GroundingAccuracy
from mvptr_model.evaluation.measure import Measured, measure
from mvptr_model.evaluation.retrieval import Retrieval
from mvptr_model.saved_model import load_model
from mvptr_model.stream.reader import Sample, ShardReader
from pipelines.demo.data_set import DrawnDataSet
from pipelines.demo.learning import Learned
from pipelines.demo.truth import gold_boxes


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """What the data set says against what was drawn; shares are 0 to 1.

    `tag_recall`: of the kinds in each picture, those among its tags. `box_recall`: of the things, those that a region overlaps
    with an IoU of 0.5 or more, each region finding one. `attribute_accuracy`: of the colors and sizes of things found so, those
    named. `phrase_f1`: phrases parsed from the captions against those meant, over all captions.
    """

    images: int
    samples: int
    shards: int
    tag_recall: float
    attribute_accuracy: float
    box_recall: float
    phrase_f1: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a model does on pictures it has not learned from; shares are 0 to 1, an RSUM is at most 600.

    `image_to_text_r1` and `text_to_image_r1` are those of `reranked`.
    """

    image_to_text_r1: float
    text_to_image_r1: float
    coarse_rsum: float
    reranked_rsum: float
    grounding_accuracy: float
    mlm_accuracy: float
    coarse: Retrieval
    reranked: Retrieval

    @classmethod
    def of(cls, coarse: Retrieval, reranked: Retrieval, grounding: float, mlm: float) -> Figures:
        return cls(
            image_to_text_r1=reranked.image_to_text.r1,
            text_to_image_r1=reranked.text_to_image.r1,
            coarse_rsum=coarse.rsum,
            reranked_rsum=reranked.rsum,
            grounding_accuracy=grounding,
            mlm_accuracy=mlm,
            coarse=coarse,
            reranked=reranked,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """The `trained` model, the same `untrained`, and `chance`: what guessing gives in expectation; for grounding the better of
    the largest box and a random one; for masked words the most frequent one, always. `seconds`: of learning and measuring."""

    trained: Figures
    untrained: Figures
    chance: Figures
    grounding: GroundingAccuracy
    pictures: int
    captions: int
    masked_words: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As `summary.json` has it: the trained model's figures stand at the top."""
        found = asdict(self)
        return rounded({**found.pop("trained"), **found})


def rounded(value: Any) -> Any:
    """All its floats to four decimals."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def measure_data(drawn: DrawnDataSet, seconds: float) -> DataSummary:
    """`seconds`: what it took to make it."""
    boxes, tags, attributes = Shares(), Shares(), Shares()
    with ShardReader(drawn.root) as reader:
        for sample in reader:
            scene = drawn.truth[sample.key]
            kinds = {thing.kind for thing in scene.things}
            tags.add(kind in sample.regions.tags for kind in kinds)
            found = _found(sample, scene)
            boxes.add(index in found.values() for index in range(len(scene.things)))
            for region, index in found.items():
                thing = scene.things[index]
                attributes.add(name in sample.regions.attributes[region] for name in (thing.color, thing.size))
        samples, shards, images = len(reader), reader.manifest["shards"], reader.manifest["images"]
    return DataSummary(
        images=images,
        samples=samples,
        shards=shards,
        tag_recall=round(tags.share, 4),
        attribute_accuracy=round(attributes.share, 4),
        box_recall=round(boxes.share, 4),
        phrase_f1=round(_phrase_f1(drawn), 4),
        seconds=round(seconds, 1),
    )


def measure_model(learned: Learned, drawn: DrawnDataSet, *, started: float) -> ModelSummary:
    """The learned model on `drawn`; `started`: when learning began (`time.monotonic`)."""
    gold = gold_boxes(drawn.truth)
    trained, untrained = (
        measure(load_model(folder), drawn.root, gold) for folder in (learned.model, learned.untrained)
    )
    grounding = _grounding(trained)
    return ModelSummary(
        trained=_figures(trained),
        untrained=_figures(untrained),
        chance=Figures.of(
            trained.guessed, trained.guessed, max(grounding.largest_box, grounding.random_box), trained.words.chance
        ),
        grounding=grounding,
        pictures=trained.images,
        captions=trained.texts,
        masked_words=trained.words.words,
        seconds=round(time.monotonic() - started, 1),
    )


def _figures(found: Measured) -> Figures:
    assert found.retrieved.coarse is not None, "the demo's model learns VSC"
    return Figures.of(
        found.retrieved.coarse, found.retrieved.reranked, _grounding(found).accuracy, found.words.accuracy
    )


def _grounding(found: Measured) -> GroundingAccuracy:
    assert found.grounding is not None, "it was measured with gold boxes"
    return found.grounding


class Shares:
    """Counts how many of many are true."""

    def __init__(self) -> None:
        self._true = self._all = 0

    def add(self, values: Iterable[bool]) -> None:
        for value in values:
            self._true += value
            self._all += 1

    @property
    def share(self) -> float:
        return self._true / self._all if self._all else 0.0


def _found(sample: Sample, scene: Scene) -> dict[int, int]:
    """Which region has found which thing."""
    things = np.array([thing.box for thing in scene.things], dtype=np.float32)
    return {region: int(thing) for region, thing in enumerate(match(overlaps(sample.boxes, things))) if thing >= 0}


def _phrase_f1(drawn: DrawnDataSet) -> float:
    """Micro-averaged F1 of the sets of phrases of each caption."""
    meant = {
        (key, caption.text): {phrase.words for phrase in caption.phrases}
        for key, scene in drawn.truth.items()
        for caption in scene.captions
    }
    store = Store.at(drawn.root)
    counts: Counter[str] = Counter()
    for bucket in range(CaptionStore.load(store).buckets):
        for row in read_table(store, layout.caption_bucket(bucket), "captions").to_pylist():
            parsed: set[PhraseWords] = {tuple(phrase["words"]) for phrase in row["phrases"]}
            wanted = meant[row["key"], row["text"]]
            counts.update(right=len(parsed & wanted), parsed=len(parsed), meant=len(wanted))
    return 2 * counts["right"] / (counts["parsed"] + counts["meant"])
