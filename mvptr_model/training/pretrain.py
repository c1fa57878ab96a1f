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

from mvptr_data.dataset.fields import configuration_differences
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.errors import ConfigurationMismatchError, OutputError
from mvptr_data.storage import Store, canonical_json, output_errors, parse_json
from mvptr_model.saved_model import MODEL, load_model, save_model
from mvptr_model.training.checkpoint_model import INITIAL, with_learned
from mvptr_model.training.checkpoints import FOLDER, Checkpoint, open_checkpoint
from mvptr_model.training.initial import initial_model
from mvptr_model.training.log import Listener, Silence
from mvptr_model.training.processes import StoppedError, StopRequest, World, joined, listening
from mvptr_model.training.resuming import AUTO, check_resume, chosen_checkpoint, go_back, stage_folder
from mvptr_model.training.settings import PretrainSettings, StageSettings
from mvptr_model.training.settings_file import shared_settings, store_settings
from mvptr_model.training.stage import StageRun, stopped


def pretrain(settings: PretrainSettings, *, resume: str = AUTO, listener: Listener | None = None) -> Path:
    """Run the stages that are not yet done. Returns the folder of the last one's model; every rank calls it.

    `resume`: "auto" goes on from the newest sound checkpoint in `output`, where there is one; "never" begins anew, and refuses an
    output that holds a run; else the folder of one of its checkpoints: what was made after it is removed, and learning rate,
    warm-up, clipping and weight decay may differ from then on. `listener` hears how it goes, on the first rank.

    Raises `StoppedError` where SIGTERM or SIGINT stopped it, after saving; `ConfigurationMismatchError` for an output with
    another run; `InputError` and other `MvptrError`s. The last sound checkpoint stays usable.
    """
    with listening() as request, joined() as world, ExitStack() as held:
        heard = listener if listener is not None and world.leads else Silence()
        checkpoint = _begin(settings, resume, world, heard, held)
        before = Path(settings.output) / INITIAL
        try:
            for stage in settings.stages:
                folder = stage_folder(settings, stage)
                here = checkpoint if checkpoint is not None and checkpoint.place.stage == stage.stage else None
                if world.most(int(not (folder / MODEL).exists())):
                    _run_stage(settings, stage, before, here, world, heard, request)
                    if number := world.most(request.number):
                        raise stopped(number, f"{folder} is done")
                before = folder
        except StoppedError as stop:
            if resume != AUTO:  # the same command would go back again, or be refused
                stop.mend = "The same command with --resume auto goes on from there."
            raise
    return before


def _begin(
    settings: PretrainSettings, resume: str, world: World, listener: Listener, held: ExitStack
) -> Checkpoint | None:
    """Make or know again the run in `output`, whose lock `held` then keeps; the checkpoint to go on from, or None."""
    output, chosen = Path(settings.output), ""
    _check_alike(settings, world)
    with world.together():
        settings.batches.micro_batch(world.size)
        if world.leads:
            chosen = _prepare(settings, resume, listener, held)
    chosen = world.told(chosen)
    if not chosen:
        return None
    listener.say(f"going on from {chosen}")
    with world.together():
        return open_checkpoint(output / FOLDER / chosen, verify=False)


def _check_alike(settings: PretrainSettings, world: World) -> None:
    """Raises `ConfigurationMismatchError` where a rank has other settings: it would learn other things, or wait for ever."""
    own = shared_settings(settings)

    def differ(first: str) -> ConfigurationMismatchError:
        theirs = parse_json(first.encode(), "the first rank's settings", "")
        differences = configuration_differences(theirs, own)
        return ConfigurationMismatchError(
            f"rank {world.rank} has other settings than the first rank (first -> this): {'; '.join(differences)}",
            "Give all ranks the same command and the same file.",
        )

    world.agree(canonical_json(own).decode(), differ)


def _prepare(settings: PretrainSettings, resume: str, listener: Listener, held: ExitStack) -> str:
    """Make ready what the stages need. Returns the name of the checkpoint to go on from, "" for none.

    Nothing is written for an input that cannot be used, nor without the right to write.
    """
    store = Store.at(settings.output)
    tuned = check_resume(settings, resume)
    first = None if store.exists(f"{INITIAL}/{MODEL}") else initial_model(settings, listener.say)
    try:
        with output_errors(store):
            held.enter_context(hold_lock(store, "pretrain"))
        chosen = chosen_checkpoint(settings, resume, listener.say)
        with output_errors(store):
            if chosen:
                go_back(Path(settings.output), chosen)
            for line in tuned:
                listener.say(f"changed from here on: {line}")
            store_settings(store, settings, {"from": chosen, "differences": tuned} if tuned else None)
            if first is not None:
                save_model(store.path(INITIAL), first)
    except (NotADirectoryError, FileExistsError) as error:
        raise OutputError(f"{store.root} is no folder", "Give another output.") from error
    return chosen


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
                save_model(folder, with_learned(before, learned), replace=True)
            listener.say(f"stage {stage.stage} is done: {folder}")
