"""The whole way on a drawn world, measured against its truth.

1. draw      abstract scenes with captions                    world/
2. extract   regions by the bundled detector                  scenes/regions/
3. parse     captions to phrases, and the vocabulary          scenes/captions/, scenes/phrase_vocab.parquet
4. write     text field, index, manifest; verify all of it    scenes/
5. look      three samples as pictures                        pictures/
6. measure   what the data set says against what was drawn    summary.json
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mvptr_data.abstract_scenes import Scene, read_truth, write_world
from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CaptionStore
from mvptr_data.dataset.tables import read_table
from mvptr_data.detectors.compact.evaluation import match, overlaps
from mvptr_data.errors import ConfigurationMismatchError, DamagedFileError, InputError
from mvptr_data.phrases import PhraseWords
from mvptr_data.storage import Store
from mvptr_model.stream.reader import Sample, ShardReader
from pipelines.cluster import ClusterOptions
from pipelines.console import Reporter, reporting
from pipelines.extract_regions import extract_regions
from pipelines.inspect_sample import draw_sample, load_sample
from pipelines.phrase_vocab import build_phrase_vocab
from pipelines.verify_shards import verify_shards
from pipelines.write_shards import write_shards

#: A phrase becomes a concept in as many texts of the demo; a world of 5,000 sentences is no corpus, 50 would leave little.
MIN_SENTENCES = 5
#: Images in a shard: small, so that even a short demo has several.
SAMPLES_PER_SHARD = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSummary:
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


def run_demo(
    directory: str, *, pictures: int = 1000, seed: int = 0, cluster: ClusterOptions | None = None, quiet: bool = False
) -> DemoSummary:
    """Do all of it in the local folder `directory`; done again, it does only what is missing.

    Raises `InputError` for a URL, `ConfigurationMismatchError` where the folder holds another world, `DamagedFileError` where
    the data set does not verify, and what the single steps raise.
    """
    cluster = cluster or ClusterOptions()
    store = Store.at(directory)
    if not store.is_local:
        raise InputError(f"{directory} is a URL", "The world is drawn on disk: give a local folder.")
    started = time.monotonic()
    with reporting(quiet=quiet) as reporter:
        truth = _world(store, reporter, pictures, seed)
        reporter.keep_log(store, "demo")
        data = store.path("scenes")
        extract_regions(
            store.path("world/images"), data, samples_per_shard=SAMPLES_PER_SHARD, cluster=cluster, quiet=quiet
        )
        build_phrase_vocab(
            [store.path("world/captions.jsonl")], data, min_sentences=MIN_SENTENCES, cluster=cluster, quiet=quiet
        )
        write_shards(data, cluster=cluster, quiet=quiet)
        verification = verify_shards(data, quiet=quiet)
        if verification.findings:
            raise DamagedFileError(
                f"{data} does not verify: {verification.findings[0].message}",
                f"Remove {directory} and run the demo again.",
            )
        _draw_samples(store, reporter, data, list(truth)[:3])
        summary = _measure(data, truth, started)
        store.write_json("summary.json", {"data": asdict(summary)})
        _report(reporter, store, summary)
    return summary


def _world(store: Store, reporter: Reporter, pictures: int, seed: int) -> dict[str, Scene]:
    """The world's truth; drawn now where it is not there."""
    if not store.exists("world/truth.jsonl"):
        with reporter.step("draw", pictures, "pictures") as step:
            write_world(store.path("world"), count=pictures, seed=seed)
            step.advance(pictures)
    truth = read_truth(store.path("world/truth.jsonl"))
    found = (len(truth), next(iter(truth.values())).seed)
    if found != (pictures, seed):
        raise ConfigurationMismatchError(
            f"{store.root} holds a demo of {found[0]} pictures with seed {found[1]}, not {pictures} with seed {seed}",
            "Give another folder, or remove that one.",
        )
    return truth


def _draw_samples(store: Store, reporter: Reporter, data: str, keys: Iterable[str]) -> None:
    for key in keys:
        name = f"pictures/{key}.png"
        with store.writing(name) as file:
            draw_sample(load_sample(data, key)).save(file, format="PNG")
        reporter.say(f"drawn: {store.path(name)}")


def _measure(data: str, truth: dict[str, Scene], started: float) -> DemoSummary:
    boxes = Shares()
    tags = Shares()
    attributes = Shares()
    with ShardReader(data) as reader:
        for sample in reader:
            scene = truth[sample.key]
            kinds = {thing.kind for thing in scene.things}
            tags.add(kind in sample.regions.tags for kind in kinds)
            found = _found(sample, scene)
            boxes.add(index in found.values() for index in range(len(scene.things)))
            for region, index in found.items():
                thing = scene.things[index]
                attributes.add(name in sample.regions.attributes[region] for name in (thing.color, thing.size))
        samples, shards, images = len(reader), reader.manifest["shards"], reader.manifest["images"]
    return DemoSummary(
        images=images,
        samples=samples,
        shards=shards,
        tag_recall=round(tags.share, 4),
        attribute_accuracy=round(attributes.share, 4),
        box_recall=round(boxes.share, 4),
        phrase_f1=round(_phrase_f1(data, truth), 4),
        seconds=round(time.monotonic() - started, 1),
    )


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


def _phrase_f1(data: str, truth: dict[str, Scene]) -> float:
    """Micro-averaged F1 of the sets of phrases of each caption."""
    meant = {
        (key, caption.text): {phrase.words for phrase in caption.phrases}
        for key, scene in truth.items()
        for caption in scene.captions
    }
    store = Store.at(data)
    counts: Counter[str] = Counter()
    for bucket in range(CaptionStore.load(store).buckets):
        for row in read_table(store, layout.caption_bucket(bucket), "captions").to_pylist():
            parsed: set[PhraseWords] = {tuple(phrase["words"]) for phrase in row["phrases"]}
            wanted = meant[row["key"], row["text"]]
            counts.update(right=len(parsed & wanted), parsed=len(parsed), meant=len(wanted))
    return 2 * counts["right"] / (counts["parsed"] + counts["meant"])


def _report(reporter: Reporter, store: Store, summary: DemoSummary) -> None:
    reporter.say("")
    counted = f"{summary.samples:,} samples of {summary.images:,} pictures in {summary.shards} verified shards"
    reporter.say(f"{counted}, {summary.seconds:.0f} s")
    for name in ("tag_recall", "attribute_accuracy", "box_recall", "phrase_f1"):
        reporter.say(f"  {name.replace('_', ' '):<20} {getattr(summary, name):.4f}")
    reporter.say(f"data set  {store.path('scenes')}")
    reporter.say(f"pictures  {Path(store.path('pictures'))}")
    reporter.say(f"summary   {store.path('summary.json')}")
