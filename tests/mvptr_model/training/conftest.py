"""A data set, a word-piece vocabulary and small settings for runs of a few seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic import write_data_set
from mvptr_model.training.settings import PretrainSettings
from mvptr_model.training.settings_file import settings_of

PIECES = "a man in red shirt rides the small brown horse on green grass near old wooden fence"


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 samples of 6 regions with two captions each, in 4 shards. Read it only."""
    root = tmp_path_factory.mktemp("shards") / "data"
    write_data_set(str(root), 48, regions=6, per_shard=12)
    return root


@pytest.fixture(scope="session")
def word_pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of the words in the data set's captions."""
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES.split()]) + "\n")
    return path


Given = Callable[..., dict[str, Any]]


@pytest.fixture
def given(shards: Path, word_pieces: Path, tmp_path: Path) -> Given:
    """`given(output="run", zero={"stage": 1})`: settings as YAML has them, of a small model; 6 batches of 16 an epoch."""

    def make(output: str = "run", **changes: Any) -> dict[str, Any]:
        values: dict[str, Any] = {
            "data": [str(shards)],
            "output": str(tmp_path / output),
            "initial": {"word_pieces": str(word_pieces)},
            "model": {
                "hidden_size": 24,
                "heads": 3,
                "feed_forward_size": 48,
                "layers": 2,
                "positions": 64,
                "wpg_layer": 1,
            },
            "batches": {"global_batch": 16},
            "stages": [
                {"stage": 1, "steps": 7, "learning_rate": 1e-3},
                {"stage": 2, "steps": 6, "learning_rate": 1e-3},
            ],
            "checkpoints": {"minutes": None},
            "log": {"tensorboard": False},
        }
        return values | changes

    return make


Settings = Callable[..., PretrainSettings]


@pytest.fixture
def small(given: Given) -> Settings:
    """`given`, as settings."""

    def make(output: str = "run", **changes: Any) -> PretrainSettings:
        return settings_of(given(output, **changes))

    return make
