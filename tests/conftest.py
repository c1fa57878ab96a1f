"""What all tests share: the reference data beside the project, and one small published data set made by the real pipelines."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# Times of single examples say nothing on a busy machine.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

REFERENCE = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Path]:
    """`reference("data/photos")`: a path of the reference data; the test is skipped where it is not there."""

    def find(name: str) -> Path:
        path = REFERENCE / name
        if not path.exists():
            pytest.skip(f"the reference data {name} is not beside the project ({REFERENCE})")
        return path

    return find


@dataclass(frozen=True)
class World:
    """A small drawn world on disk."""

    images: Path
    captions: Path
    truth: Path


PICTURES = 11
PER_SHARD = 4


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """`PICTURES` abstract scenes with their captions."""
    from mvptr_data.abstract_scenes import write_world

    folder = tmp_path_factory.mktemp("world")
    write_world(folder, count=PICTURES, seed=7)
    return World(images=folder / "images", captions=folder / "captions.jsonl", truth=folder / "truth.jsonl")


Build = Callable[..., None]


@pytest.fixture(scope="session")
def build() -> Build:
    """`build(world, out, cluster="inline")`: images and captions to a published data set, by the functions of the commands."""
    from pipelines.cluster import ClusterOptions
    from pipelines.extract_regions import extract_regions
    from pipelines.phrase_vocab import build_phrase_vocab
    from pipelines.write_shards import write_shards

    def run(world: World, out: Path, cluster: str = "inline") -> None:
        options = ClusterOptions(cluster=cluster)
        extract_regions(str(world.images), str(out), samples_per_shard=PER_SHARD, cluster=options, quiet=True)
        build_phrase_vocab([str(world.captions)], str(out), min_sentences=2, cluster=options, quiet=True)
        write_shards(str(out), cluster=options, quiet=True)

    return run


@pytest.fixture(scope="session")
def published(world: World, build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published data set of the world, made in this process. Read it only; `data_set` is a copy to break."""
    out = tmp_path_factory.mktemp("published") / "scenes"
    build(world, out)
    return out


@pytest.fixture
def data_set(published: Path, tmp_path: Path) -> Path:
    """A copy of the published data set."""
    return Path(shutil.copytree(published, tmp_path / "scenes"))
