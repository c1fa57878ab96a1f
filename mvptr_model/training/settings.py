"""Everything that decides a pre-training run (MVPTR 4.1, A.2). The defaults are the paper's.

    settings = PretrainSettings(data=("coco",), output="runs/coco", initial=InitialSettings(bert="bert-base-uncased"))

`settings_file.py` reads them from YAML, where each field below is a key and each settings class a section.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from mvptr_data.errors import InputError
from mvptr_data.storage import is_url
from mvptr_model.configuration import PRESETS, ModelConfiguration
from mvptr_model.inputs import InputSettings
from mvptr_model.masking import MaskingSettings
from mvptr_model.stream import keyed
from mvptr_model.stream.loader import PREFETCH_BYTES
from mvptr_model.stream.settings import OrderSettings

#: Sizes of the embedding table: the vocabularies of word pieces and phrases decide them, not a setting.
ROWS = ("word_rows", "phrase_rows")
#: The largest of numbers that are kept in 64 bits.
_MOST = (1 << 63) - 1
#: The largest power of two in float32, as which fp16's losses are scaled.
_MOST_POWER = 127


def _check_least(name: str, value: int | None, least: int, most: int = _MOST) -> None:
    if type(value) is not int or not least <= value <= most:
        bound = f" to {most:,}" if type(value) is int and value > most else ""
        raise InputError(f"{name} is {value!r}", f"Give a whole number from {least}{bound}.")


def _check_range(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest or math.isinf(value):
        raise InputError(f"{name} is {value!r}", f"Give a number from {lowest} to {highest}.")


def _check_choice(name: str, value: int, known: tuple[int, ...]) -> None:
    if value not in known:
        raise InputError(f"{name} is {value!r}", f"Choose one of {', '.join(map(str, known))}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialSettings:
    """The weights to begin with, one of: a BERT (`bert`: a hub name or a directory), a saved model (`model`: a folder; a
    run's checkpoint is one, too), fresh ones with a word-piece vocabulary (`word_pieces`: a file such as BERT's vocab.txt, as
    `train-word-pieces` writes)."""

    bert: str | None = None
    model: str | None = None
    word_pieces: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("bert", "model", "word_pieces") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(
                f"initial names {' and '.join(given) or 'nothing'} to begin with",
                "Give one of bert, model and word_pieces.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSettings:
    """One of the two stages, so many `epochs` or optimizer `steps` long.

    The learning rate rises linearly over the first `warm_up` of them to `learning_rate`, then falls linearly to 0.
    """

    stage: int
    epochs: int | None = None
    steps: int | None = None
    learning_rate: float = 1e-4
    warm_up: float = 0.2

    def __post_init__(self) -> None:
        _check_choice("stage", self.stage, (1, 2))
        if (self.epochs is None) == (self.steps is None):
            raise InputError(
                f"stage {self.stage} has epochs {self.epochs} and steps {self.steps}", "Give one of the two."
            )
        _check_least("epochs or steps", self.epochs if self.steps is None else self.steps, 1)
        _check_range("learning_rate", self.learning_rate, 0, math.inf)
        _check_range("warm_up", self.warm_up, 0, 1)

    def length(self, batches: int) -> int:
        """Optimizer steps, where an epoch has so many batches."""
        return self.epochs * batches if self.steps is None and self.epochs is not None else int(self.steps or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """What fills the batches; see `OrderSettings` and `StreamLoader`.

    `global_batch`: pairs of an optimizer step over all ranks. `accumulation`: in how many parts these go through the model, one
    after another; only pairs of one part are each other's negatives, so it decides the result, unlike the number of ranks.
    `max_faults`: unsound samples that each rank may leave out. `workers`: processes a rank that make batches; 0 for a thread.
    """

    global_batch: int = 1024
    accumulation: int = 1
    canonical_streams: int = 8
    block_shards: int = 16
    captions: Literal["one", "every"] = "every"
    distinct_images: bool = True
    tail: Literal["drop", "pad"] = "drop"
    weights: tuple[float, ...] | None = None
    max_faults: int = 0
    workers: int = 0
    prefetch_bytes: int = PREFETCH_BYTES

    def __post_init__(self) -> None:
        for name in ("accumulation", "global_batch", "canonical_streams", "block_shards"):
            _check_least(name, getattr(self, name), 1)
        for name in ("max_faults", "workers", "prefetch_bytes"):
            _check_least(name, getattr(self, name), 0)
        for weight in self.weights or ():
            _check_range("weights", weight, 0, math.inf)
        self.order(seed=0)

    def order(self, seed: int) -> OrderSettings:
        """The settings of the order of samples. Raises `InputError`."""
        return OrderSettings(
            global_batch=self.global_batch,
            seed=seed,
            canonical_streams=self.canonical_streams,
            block_shards=self.block_shards,
            captions=self.captions,
            distinct_images=self.distinct_images,
            tail=self.tail,
            weights=self.weights,
        )

    def micro_batch(self, world: int) -> int:
        """Pairs that each of `world` ranks takes through the model at a time. Raises `InputError` where parts are unequal."""
        micro, rest = divmod(self.global_batch, world * self.accumulation)
        if rest or not micro:
            raise InputError(
                f"a global batch of {self.global_batch} has no {self.accumulation} equal parts for each of {world} ranks",
                f"Choose a global_batch that {world * self.accumulation} divides, or another number of ranks.",
            )
        return micro


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """AdamW (Loshchilov and Hutter 2019). `weight_decay` is for matrices alone: not for biases, LayerNorms and `logit_scale`.
    Gradients longer than `clipping` are shortened to it; 0 leaves them as they are."""

    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    clipping: float = 10.0

    def __post_init__(self) -> None:
        for beta in self.betas:
            if not 0 <= beta < 1:
                raise InputError(f"betas has {beta!r}", "Give numbers from 0 and below 1.")
        for name in ("epsilon", "weight_decay", "clipping"):
            _check_range(name, getattr(self, name), 0, math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionSettings:
    """`type`: of weights and activations in forward and backward passes; the optimizer's own weights are float32.

    The others are fp16's dynamic loss scale: it starts at 2 to the power `initial_scale_power`, doubles after
    `scale_window` steps without overflow, halves after `hysteresis` overflows, and a run ends when it would fall below
    `min_scale`.
    """

    type: Literal["fp32", "bf16", "fp16"] = "fp32"
    initial_scale_power: int = 10
    scale_window: int = 1000
    hysteresis: int = 2
    min_scale: int = 1

    def __post_init__(self) -> None:
        _check_least("initial_scale_power", self.initial_scale_power, 0, _MOST_POWER)
        for name in ("scale_window", "hysteresis"):
            _check_least(name, getattr(self, name), 1)
        _check_least("min_scale", self.min_scale, 1, 1 << min(self.initial_scale_power, 62))


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroSettings:
    """DeepSpeed's ZeRO (Rajbhandari et al. 2020): ranks share out nothing (0), optimizer states (1), gradients too (2);
    in half precision 0 is done as 1, with the same result.
    `bucket_size`: numbers that are reduced together."""

    stage: int = 2
    bucket_size: int = 200_000_000

    def __post_init__(self) -> None:
        _check_choice("zero.stage", self.stage, (0, 1, 2))
        _check_least("bucket_size", self.bucket_size, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSettings:
    """A checkpoint is written every so many `steps`, and after so many `minutes`, whichever comes first (None: not for that
    reason), and when a signal stops the run. The newest `keep` stay."""

    steps: int | None = None
    minutes: float | None = 30.0
    keep: int = 3

    def __post_init__(self) -> None:
        if self.steps is not None:
            _check_least("checkpoints.steps", self.steps, 1)
        if self.minutes is not None:
            _check_range("checkpoints.minutes", self.minutes, 0, math.inf)
        _check_least("keep", self.keep, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Every how many `steps` a line is written, whether for `tensorboard` too, and the `peak_flops` of a rank's device that the
    model's FLOPs are held against (None: the known figure of known GPUs)."""

    steps: int = 1
    tensorboard: bool = True
    peak_flops: float | None = None

    def __post_init__(self) -> None:
        _check_least("log.steps", self.steps, 1)
        if self.peak_flops is not None:
            _check_range("peak_flops", self.peak_flops, 1, math.inf)


PAPER_STAGES = (StageSettings(stage=1, epochs=15), StageSettings(stage=2, epochs=30))


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainSettings:
    """A run. Raises `InputError` for a value that cannot be used.

    `data`: published data sets, folders or URLs. `output`: a local folder. `model`: `preset` and what differs from it, as in
    `ModelConfiguration`. `seed` decides all that is drawn: fresh weights, order, masks (whose own seed is not used),
    dropout, negatives.
    """

    data: tuple[str, ...]
    output: str
    initial: InitialSettings
    model: Mapping[str, Any] = field(default_factory=lambda: {"preset": "paper"})
    inputs: InputSettings = field(default_factory=lambda: InputSettings(packed=True))
    masking: MaskingSettings = field(default_factory=MaskingSettings)
    seed: int = 0
    stages: tuple[StageSettings, ...] = PAPER_STAGES
    batches: BatchSettings = BatchSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    precision: PrecisionSettings = PrecisionSettings()
    zero: ZeroSettings = ZeroSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    log: LogSettings = LogSettings()

    def __post_init__(self) -> None:
        if not self.data or not all(self.data):
            raise InputError(f"data is {list(self.data)}", "Name the published data sets to learn from.")
        if not self.output or is_url(self.output):
            raise InputError(f"output is {self.output!r}", "Give a local folder, which all ranks see.")
        _check_least("seed", self.seed, 0)
        numbers = [stage.stage for stage in self.stages]
        if not numbers or sorted(set(numbers)) != numbers:
            raise InputError(f"the stages are {numbers}", "Give stage 1, stage 2, or 1 and then 2.")
        configuration = self.configuration()
        for number in numbers:
            configuration.learns(number)

    def configuration(self, **rows: int) -> ModelConfiguration:
        """The model's configuration; `rows` are `word_rows` and `phrase_rows`, once known. Raises `InputError`."""
        changes = dict(self.model)
        preset = changes.pop("preset", "paper")
        ModelConfiguration.preset(preset)  # a known one
        if given := [name for name in ROWS if name in changes]:
            raise InputError(f"model.{given[0]} is given", "Leave it out: the vocabularies decide it.")
        base = msgspec.to_builtins(ModelConfiguration.preset(preset))
        if unknown := sorted(changes.keys() - base.keys()):
            known = ", ".join(("preset", *(name for name in base if name not in ROWS)))
            raise InputError(f"there is no setting model.{unknown[0]}", f"Known in model: {known}.")
        try:
            return msgspec.convert({**base, **changes, **rows}, ModelConfiguration, strict=False)
        except msgspec.ValidationError as error:
            raise InputError(f"model: {error}", f"The presets are {', '.join(PRESETS)}.") from error

    def stage_seed(self, stage: int) -> int:
        """Decides all that is drawn in a stage. Each has its own, so that stage 2 alone is stage 2 after stage 1."""
        return keyed.key("stage", self.seed, stage) >> 1  # fits a signed number

    def stage_masking(self, stage: int) -> MaskingSettings:
        """The masking settings of a stage."""
        return replace(self.masking, seed=self.stage_seed(stage))
