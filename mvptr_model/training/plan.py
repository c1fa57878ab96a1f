"""What a run would take, and what stands in its way, before a cluster is asked.

    found = plan(read_settings("paper.yaml"), ranks=8)
    found.problems      # all of them; none: the run can start

Everything that a run reads is read as the run does: data sets, vocabularies, initial weights. Nothing is written but caches of
what is remote.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from mvptr_data.dataset.index import load_index
from mvptr_data.dataset.manifest import load_manifest
from mvptr_data.errors import InputError, MvptrError
from mvptr_data.storage import Store
from mvptr_model.batch import Batch
from mvptr_model.configuration import ModelConfiguration
from mvptr_model.flops import batch_flops
from mvptr_model.initialisation.bert import from_bert
from mvptr_model.initialisation.weights import NO_PHRASES
from mvptr_model.initialisation.word_piece_training import SPECIAL
from mvptr_model.inputs import Collator
from mvptr_model.model import Mvptr
from mvptr_model.saved_model import SavedModel
from mvptr_model.stream.batches import BatchReader, StreamSpec
from mvptr_model.stream.settings import OrderSettings
from mvptr_model.training.checkpoint_model import load_start
from mvptr_model.training.initial import initial_model
from mvptr_model.training.learned import learned_names
from mvptr_model.training.memory import TYPES, Memory, activation_bytes, checkpoint_bytes, memory_of
from mvptr_model.training.resuming import AUTO, NEVER, check_resume
from mvptr_model.training.settings import PretrainSettings, StageSettings
from mvptr_model.word_pieces import WordPieces

#: Pairs of the two batches whose activations are counted.
MEASURED = (4, 8)
#: Parameters by what they are for; the first prefix that fits counts.
_PARTS = {
    "bert.embeddings.": "embeddings",
    "bert.img_embedding.": "region embedding",
    "bert.LayerNorm.": "region embedding",
    "bert.txt_encoder.": "textual encoder",
    "bert.vis_encoder.": "visual encoder",
    "bert.mul_encoder.": "multi-modal encoder",
    "bert.pooler.": "ITM head",
    "cls.seq_relationship.": "ITM head",
    "bert.": "VSC projections",
    "logit_scale": "VSC projections",
    "cls.predictions.": "MLM head",
    "half_mlm.": "tag head",
    "phrase_mcr.": "phrase head",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSetPlan:
    """A data set as it is published: `captions` of `samples` images, in so many `bytes`."""

    root: str
    samples: int
    captions: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """A stage: `steps` of the optimizer, `batches` an epoch, `pairs` in all, of which a rank takes `micro_batch` at a time.

    `flops`: floating-point operations of all pairs, forward and backward.
    """

    stage: int
    batches: int
    steps: int
    warm_up: int
    pairs: int
    micro_batch: int
    learned: int
    flops: float
    memory: Memory


@dataclass(slots=True)
class Plan:
    """What was found; a part that a problem hid is missing. `notes`: what the initial weights do not have."""

    ranks: int
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: list[DataSetPlan] = field(default_factory=list)
    configuration: ModelConfiguration | None = None
    parameters: dict[str, int] = field(default_factory=dict)
    stages: list[StagePlan] = field(default_factory=list)
    checkpoint_bytes: int | None = None

    @contextmanager
    def noting(self) -> Iterator[None]:
        """What ends a run is a problem here, and the plan goes on."""
        try:
            yield
        except (MvptrError, OSError) as error:
            problem = str(error)
            if problem not in self.problems:
                self.problems.append(problem)


def plan(settings: PretrainSettings, *, ranks: int = 1, device_bytes: int | None = None, resume: str = AUTO) -> Plan:
    """What `settings` would take on `ranks` ranks, each with `device_bytes` of memory, if that is known; `resume` as in
    `pretrain`."""
    found = Plan(ranks=ranks)
    _check_packages(found, settings)
    roots = tuple(dict.fromkeys(settings.data))
    for root in roots:
        with found.noting():
            found.data.append(_data_set(root))
    with found.noting():
        _check_output(settings, resume)
    micro_batch = saved = None
    with found.noting():
        micro_batch = settings.batches.micro_batch(ranks)
    with found.noting():
        saved = _initial(found, settings)
    batches: list[int] = []
    if len(found.data) == len(roots):
        with found.noting():
            batches = [_batches(settings, stage) for stage in settings.stages]
    if saved is not None:
        _describe(found, saved, settings)
    if saved is not None and micro_batch is not None:
        for stage, count in zip(settings.stages, batches, strict=False):  # none, where they are not known
            with found.noting():
                found.stages.append(_stage(found, saved, settings, stage, count, micro_batch))
    if found.checkpoint_bytes is not None:
        with found.noting():
            _check_room(found.checkpoint_bytes * (settings.checkpoints.keep + 1), settings.output)
    if device_bytes is not None:
        for one in found.stages:
            if one.memory.most > device_bytes:
                found.problems.append(
                    f"stage {one.stage} needs {gigabytes(one.memory.most)} a rank, and a device has "
                    f"{gigabytes(device_bytes)}. Take more ranks, more batches.accumulation or bf16."
                )
    return found


def parameters_by_part(model: Mvptr) -> dict[str, int]:
    """How many numbers each part has."""
    found: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        found[next(part for prefix, part in _PARTS.items() if name.startswith(prefix))] += parameter.numel()
    return dict(found)


def gigabytes(count: int) -> str:
    """`12,300,000,000` -> `12.3 GB`."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


def _check_packages(found: Plan, settings: PretrainSettings) -> None:
    wanted = ["deepspeed", *(["tensorboard"] if settings.log.tensorboard else [])]
    for name in wanted:
        if importlib.util.find_spec(name) is None:
            found.problems.append(f"{name} is not installed. pip install 'mvptr-data[train]'")


def _data_set(root: str) -> DataSetPlan:
    """Raises what reading its manifest and index raises, and `InputError` naming a shard's file that is not as promised."""
    store = Store.at(root)
    manifest = load_manifest(store)
    index = load_index(store, manifest)
    # One request a file: of an object store the first ones must do.
    for row in index if store.is_local else index[:4]:
        for name, size in ((row.file, row.bytes), (row.rows_file, row.rows_bytes)):
            if (there := store.size(name)) != size:
                raise InputError(
                    f"{store.path(name)} {'is missing' if there is None else f'has {there:,} bytes, not {size:,}'}",
                    f"Run `mvptr-data verify {root}`.",
                )
    return DataSetPlan(
        root=root,
        samples=manifest["samples"],
        captions=sum(row.captions or 0 for row in index),
        bytes=sum(row.bytes for row in index),
    )


def _check_output(settings: PretrainSettings, resume: str) -> None:
    """Raises `InputError` where the output cannot be written, and as `check_resume`."""
    output = Path(settings.output).absolute()
    if output.exists() or resume not in (AUTO, NEVER):
        check_resume(settings, resume)
    there = _existing(output)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {output}: {there} is no folder of yours", "Give another output.")


def _existing(path: Path) -> Path:
    """The nearest folder, or file, that there is."""
    return next(one for one in (path, *path.parents) if one.exists())


def _check_room(needed: int, output: str) -> None:
    free = shutil.disk_usage(_existing(Path(output).absolute())).free
    if needed > free:
        raise InputError(
            f"checkpoints take up to {gigabytes(needed)} in {output}, which has {gigabytes(free)} free",
            "Make room, give another output, or lower checkpoints.keep.",
        )


def _describe(found: Plan, saved: SavedModel, settings: PretrainSettings) -> None:
    found.configuration, found.parameters = saved.model.configuration, parameters_by_part(saved.model)
    numbers = sum(found.parameters.values())
    learned = [_learned(saved.model, stage) for stage in settings.stages]
    found.checkpoint_bytes = checkpoint_bytes(numbers=numbers, learned=max(learned))


def _learned(model: Mvptr, stage: StageSettings) -> int:
    sizes: Mapping[str, int] = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return sum(sizes[name] for name in learned_names(model.configuration, stage.stage, sizes))


def _initial(found: Plan, settings: PretrainSettings) -> SavedModel | None:
    """The model that the run would begin with, for the phrases of the data sets that are sound; without any, None, after its
    source was read. Raises what reading that raises."""
    if found.data:
        return initial_model(replace(settings, data=tuple(one.root for one in found.data)), found.notes.append)
    initial = settings.initial
    if initial.model is not None:
        load_start(initial.model)
    elif initial.word_pieces is not None:
        WordPieces.load(initial.word_pieces)
    elif initial.bert is not None:
        from_bert(initial.bert, NO_PHRASES, settings=settings.model, inputs=settings.inputs)
    return None


def _batches(settings: PretrainSettings, stage: StageSettings) -> int:
    """Global batches of an epoch. Raises what opening the stream raises."""
    unread = Collator(WordPieces(SPECIAL), NO_PHRASES)  # only the order is asked for
    order = settings.batches.order(settings.stage_seed(stage.stage))
    return BatchReader(StreamSpec(roots=settings.data, order=order, collate=unread)).order.batches


def _stage(
    found: Plan, saved: SavedModel, settings: PretrainSettings, stage: StageSettings, batches: int, micro_batch: int
) -> StagePlan:
    """Raises what the first samples raise."""
    model = saved.model.to(TYPES[settings.precision.type]).train()
    names = learned_names(model.configuration, stage.stage, dict(model.named_parameters()))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    learned, steps = _learned(model, stage), stage.length(batches)
    sizes = MEASURED if micro_batch > MEASURED[1] else (micro_batch,)
    samples = [_first_batch(settings, saved, stage, pairs) for pairs in sizes]
    pairs = steps * settings.batches.global_batch
    flops = batch_flops(model.configuration, samples[-1], stage=stage.stage, ranks=found.ranks) / sizes[-1]
    return StagePlan(
        stage=stage.stage,
        batches=batches,
        steps=steps,
        warm_up=round(stage.warm_up * steps),
        pairs=pairs,
        micro_batch=micro_batch,
        learned=learned,
        flops=flops * pairs,
        memory=memory_of(
            settings,
            numbers=sum(found.parameters.values()),
            learned=learned,
            world=found.ranks,
            activations=activation_bytes(model, samples, micro_batch, stage=stage.stage),
        ),
    )


def _first_batch(settings: PretrainSettings, saved: SavedModel, stage: StageSettings, pairs: int) -> Batch:
    """The first so many pairs of an order of their own."""
    order = OrderSettings(global_batch=pairs, canonical_streams=1, captions=settings.batches.captions)
    collate = Collator(saved.words, saved.phrases, saved.inputs, settings.stage_masking(stage.stage))
    batch: Batch = BatchReader(StreamSpec(roots=settings.data, order=order, collate=collate)).read(0, 0)[0].batch
    return batch
