"""A world, drawn and taken all the way to a verified data set."""

from __future__ import annotations

from dataclasses import dataclass

from mvptr_data.abstract_scenes import Scene, read_truth, write_world
from mvptr_data.errors import ConfigurationMismatchError, DamagedFileError
from mvptr_data.storage import Store
from pipelines.cluster import ClusterOptions
from pipelines.console import Reporter
from pipelines.extract_regions import extract_regions
from pipelines.phrase_vocab import build_phrase_vocab
from pipelines.verify_shards import verify_shards
from pipelines.write_shards import write_shards

#: A phrase becomes a concept in as many texts of the demo; a world of 20,000 sentences is no corpus, 50 would leave little.
MIN_SENTENCES = 5
#: Images in a shard: small, so that even a short demo has several.
SAMPLES_PER_SHARD = 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnDataSet:
    """The published data set in the folder `root`, and by image key what was drawn."""

    root: str
    truth: dict[str, Scene]

    @property
    def vocabulary(self) -> str:
        """The file of its phrases."""
        return Store.at(self.root).path("phrase_vocab.parquet")


def published_world(
    folder: str,
    reporter: Reporter,
    pictures: int,
    seed: int,
    *,
    vocab: str | None = None,
    cluster: ClusterOptions,
    quiet: bool,
) -> DrawnDataSet:
    """`pictures` of the world `seed` in `folder`/world, their data set in `folder`/scenes; done again, what is missing.

    `vocab`: a phrase vocabulary to write it with, other than its own. Raises `ConfigurationMismatchError` where the folder
    holds another world, `DamagedFileError` where the data set does not verify, and what the single steps raise.
    """
    store = Store.at(folder)
    truth = _world(store, reporter, pictures, seed)
    root = store.path("scenes")
    extract_regions(store.path("world/images"), root, samples_per_shard=SAMPLES_PER_SHARD, cluster=cluster, quiet=quiet)
    build_phrase_vocab(
        [store.path("world/captions.jsonl")], root, min_sentences=MIN_SENTENCES, cluster=cluster, quiet=quiet
    )
    write_shards(root, vocab=vocab, cluster=cluster, quiet=quiet)
    verification = verify_shards(root, quiet=quiet)
    if verification.findings:
        raise DamagedFileError(
            f"{root} does not verify: {verification.findings[0].message}",
            f"Remove {folder} and run the demo again.",
        )
    return DrawnDataSet(root=root, truth=truth)


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
