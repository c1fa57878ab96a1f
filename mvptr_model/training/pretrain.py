"""Pre-training: both stages, or either alone (MVPTR 4.1, A.2).

    settings = read_settings("paper.yaml", ["output=runs/paper"])
    model = load_model(pretrain(settings))

The same call, in one process or in every process that a launcher starts. What becomes of `output`:

    settings.json       all settings, to know the run again by
    initial/            the model it began with (`saved_model.py`)
    stage-1/, stage-2/  the model after each stage
    checkpoints/        where it can be gone on from (`checkpoints.py`)
    log.jsonl           every step (`log.py`); tensorboard/ the same
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from torch import Tensor

from mvptr_data.dataset.locks import hold_lock
from mvptr_data.errors import InputError, OutputError
from mvptr_data.storage import Store, output_errors
from mvptr_model.saved_model import MODEL, SavedModel, load_model, save_model
from mvptr_model.training.checkpoints import FOLDER, Checkpoint, names, newest_checkpoint, open_checkpoint
from mvptr_model.training.initial import initial_model
from mvptr_model.training.log import LOG, Listener, Silence
from mvptr_model.training.processes import StopRequest, World, joined, listening
from mvptr_model.training.settings import PretrainSettings, StageSettings
from mvptr_model.training.settings_file import SETTINGS_FILE, check_same_run, store_settings
from mvptr_model.training.stage import StageRun, stopped

INITIAL = "initial"
#: What `resume` may be besides a checkpoint's folder.
AUTO, NEVER = "auto", "never"


def pretrain(settings: PretrainSettings, *, resume: str = AUTO, listener: Listener | None = None) -> Path:
    """Run the stages that are not yet done. Returns the folder of the last one's model; every rank calls it.

    `resume`: "auto" goes on from the newest sound checkpoint in `output`, where there is one; "never" begins anew, and refuses an
    output that holds a run; else the folder of one of its checkpoints. `listener` hears how it goes, on the first rank.

    Raises `StoppedError` where SIGTERM or SIGINT stopped it, after saving; `ConfigurationMismatchError` for an output with
    another run; `InputError` and other `MvptrError`s. The last sound checkpoint stays usable.
    """
    with listening() as request, joined() as world, ExitStack() as held:
        heard = listener if listener is not None and world.leads else Silence()
        checkpoint = _begin(settings, resume, world, heard, held)
        before, anew = Path(settings.output) / INITIAL, False
        for stage in settings.stages:
            folder = stage_folder(settings, stage)
            here = checkpoint if checkpoint is not None and checkpoint.place.stage == stage.stage else None
            # Going back to a checkpoint makes its stage anew, and with it those that follow.
            anew = anew or here is not None
            if world.most(int(anew or not (folder / MODEL).exists())):
                _run_stage(settings, stage, before, here, world, heard, request)
                if number := world.most(request.number):
                    raise stopped(number, f"{folder} is done")
            before = folder
    return before


def stage_folder(settings: PretrainSettings, stage: StageSettings) -> Path:
    """Where the model is after a stage."""
    return Path(settings.output) / f"stage-{stage.stage}"


def _begin(
    settings: PretrainSettings, resume: str, world: World, listener: Listener, held: ExitStack
) -> Checkpoint | None:
    """Make or know again the run in `output`, whose lock `held` then keeps; the checkpoint to go on from, or None."""
    output, chosen = Path(settings.output), ""
    with world.together():
        settings.batches.micro_batch(world.size)
        if world.leads:
            chosen = _chosen(settings, resume, listener)
            _prepare(settings, listener, held)
    chosen = world.told(chosen)
    if not chosen:
        return None
    listener.say(f"going on from {chosen}")
    with world.together():
        return open_checkpoint(output / FOLDER / chosen, verify=False)


def _prepare(settings: PretrainSettings, listener: Listener, held: ExitStack) -> None:
    """What the stages need, and the right to write; nothing is written for an input that cannot be used."""
    store = Store.at(settings.output)
    first = None if store.exists(f"{INITIAL}/{MODEL}") else initial_model(settings, listener.say)
    try:
        with output_errors(store):
            held.enter_context(hold_lock(store, "pretrain"))
            store_settings(store, settings)
            if first is not None:
                save_model(store.path(INITIAL), first)
    except (NotADirectoryError, FileExistsError) as error:
        raise OutputError(f"{store.root} is no folder", "Give another output.") from error


def _chosen(settings: PretrainSettings, resume: str, listener: Listener) -> str:
    """The name of the checkpoint to go on from, "" for none."""
    output, store = Path(settings.output), Store.at(settings.output)
    if resume == NEVER:
        if any((output / name).exists() for name in (SETTINGS_FILE, INITIAL, LOG, FOLDER)):
            raise InputError(f"{output} holds a run already", "Give another output, or --resume auto to go on.")
        return ""
    check_same_run(store, settings)
    if resume == AUTO:
        pending = (stage.stage for stage in settings.stages if not (stage_folder(settings, stage) / MODEL).exists())
        found = newest_checkpoint(output, next(pending, 0), listener.say)
        return found.folder.name if found else ""
    folder = Path(resume)
    if folder.name not in names(output) or folder.resolve().parent != (output / FOLDER).resolve():
        known = ", ".join(names(output)) or "none"
        raise InputError(f"{resume} is no checkpoint of {output}", f"It has {known}. Choose one, auto or never.")
    return open_checkpoint(folder).folder.name


def _run_stage(
    settings: PretrainSettings,
    stage: StageSettings,
    before: Path,
    checkpoint: Checkpoint | None,
    world: World,
    listener: Listener,
    request: StopRequest,
) -> None:
    with world.together():
        start = load_model(before)
    learned = StageRun(settings, stage, start, checkpoint, world, listener).run(request)
    with world.together():
        if world.leads:
            folder = stage_folder(settings, stage)
            with output_errors(Store.at(settings.output)):
                save_model(folder, _with_weights(before, learned), replace=True)
            listener.say(f"stage {stage.stage} is done: {folder}")


def _with_weights(before: Path, learned: dict[str, Tensor]) -> SavedModel:
    """The model that a stage began with, with what it learned; the rest as it was, in float32."""
    saved = load_model(before)
    weights = saved.model.state_dict()
    weights |= {name: value.reshape(weights[name].shape) for name, value in learned.items()}
    saved.model.load_state_dict(weights)
    return saved
