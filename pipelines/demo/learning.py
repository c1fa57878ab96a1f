"""Both stages of pre-training on the drawn data set: a small model from fresh weights, which learns in minutes on two cores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvptr_data.storage import Store
from mvptr_model.inputs import InputSettings
from mvptr_model.training.pretrain import INITIAL, pretrain
from mvptr_model.training.settings import (
    BatchSettings,
    CheckpointSettings,
    InitialSettings,
    LogSettings,
    PretrainSettings,
    StageSettings,
    ZeroSettings,
)
from pipelines.console import reporting
from pipelines.demo.data_set import DrawnDataSet
from pipelines.train_cli.progress import TrainingProgress
from pipelines.train_word_pieces import write_word_pieces

#: Beside the worlds: the word pieces, and the run.
WORD_PIECES, RUN = "training/vocab.txt", "training/run"
#: At most so many word pieces: the words of the drawn world's captions stay whole.
WORD_PIECE_ROWS = 1000
#: The paper's model, but two layers a stack and 128 wide; without dropout, for a few passes over what is drawn. Its batches are
#: small and its weights fresh: as sharp as the paper's (0.07), eq. 4 draws negatives so hard that ITM stays at chance.
MODEL: dict[str, Any] = {
    "preset": "paper",
    "hidden_size": 128,
    "heads": 4,
    "feed_forward_size": 512,
    "layers": 2,
    "positions": 64,
    "wpg_layer": 1,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "temperature": 0.25,
    "max_similarity_scale": 4.0,
}
#: What a drawn picture and its captions need.
INPUTS = InputSettings(max_words=24, max_phrases=5, max_tags=12, max_regions=12, packed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoTraining:
    """The steps of the two stages, of so many pairs each, and the peak learning rate."""

    first_steps: int = 600
    second_steps: int = 3000
    pairs: int = 32
    learning_rate: float = 1e-3


@dataclass(frozen=True, slots=True)
class Learned:
    """A finished run in the folder `run`, and the folder of its `model`."""

    run: Path
    model: Path

    @property
    def untrained(self) -> Path:
        """The folder of the model before the first step."""
        return self.run / INITIAL


def learn(store: Store, drawn: DrawnDataSet, training: DemoTraining, *, seed: int, quiet: bool) -> Learned:
    """Train word pieces on the captions, then the model; what was begun goes on, what is finished stays.

    Raises `ConfigurationMismatchError` where `store` holds a run with other settings, and what `pretrain` raises.
    """
    if not store.exists(WORD_PIECES):
        write_word_pieces([drawn.root], store.path(WORD_PIECES), size=WORD_PIECE_ROWS, quiet=quiet)
    settings = demo_settings(store, drawn, training, seed=seed)
    with reporting(quiet=quiet) as reporter:
        model = pretrain(settings, listener=TrainingProgress(reporter, settings.output))
    return Learned(Path(settings.output), model)


def demo_settings(
    store: Store, drawn: DrawnDataSet, training: DemoTraining, *, seed: int, **model: Any
) -> PretrainSettings:
    """The run of the demo in `store`; `model` changes its configuration."""
    stages = ((1, training.first_steps), (2, training.second_steps))
    return PretrainSettings(
        data=(drawn.root,),
        output=store.path(RUN),
        initial=InitialSettings(word_pieces=store.path(WORD_PIECES)),
        model={**MODEL, **model},
        inputs=INPUTS,
        seed=seed,
        stages=tuple(
            StageSettings(stage=stage, steps=steps, learning_rate=training.learning_rate) for stage, steps in stages
        ),
        batches=BatchSettings(
            # A world of few pictures fills no large batch.
            global_batch=min(training.pairs, len(drawn.truth)),
            canonical_streams=1,
            captions="one",
        ),
        zero=ZeroSettings(stage=0),
        checkpoints=CheckpointSettings(minutes=1.0, keep=1),
        log=LogSettings(steps=5, tensorboard=False),
    )
