"""Where a run goes on from: its newest checkpoint, a named one, or nowhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mvptr_data.errors import InputError
from mvptr_data.storage import Store
from mvptr_model.saved_model import MODEL
from mvptr_model.training.checkpoint_model import INITIAL
from mvptr_model.training.checkpoints import (
    FOLDER,
    names,
    newest_checkpoint,
    open_checkpoint,
    remove_after,
    stage_and_step,
)
from mvptr_model.training.log import LOG
from mvptr_model.training.settings import PretrainSettings, StageSettings
from mvptr_model.training.settings_file import SETTINGS_FILE, check_same_run

#: What `resume` may be besides a checkpoint's folder: the newest sound one, where there is one; none.
AUTO, NEVER = "auto", "never"


def check_resume(settings: PretrainSettings, resume: str) -> list[str]:
    """Whether the output can be gone on with as `resume` says; the settings that differ from then on.

    Raises `InputError` for what is no checkpoint of it, `ConfigurationMismatchError` for an output with another run.
    """
    output = Path(settings.output)
    if resume == NEVER:
        if any((output / name).exists() for name in (SETTINGS_FILE, INITIAL, LOG, FOLDER)):
            raise InputError(f"{output} holds a run already", "Give another output, or --resume auto to go on.")
        return []
    if resume == AUTO:
        return check_same_run(Store.at(output), settings)
    folder = Path(resume)
    if folder.name not in names(output) or folder.resolve().parent != (output / FOLDER).resolve():
        known = ", ".join(names(output)) or "none"
        raise InputError(f"{resume} is no checkpoint of {output}", f"It has {known}. Choose one, auto or never.")
    return check_same_run(Store.at(output), settings, tuned_from=stage_and_step(folder.name)[0])


def chosen_checkpoint(settings: PretrainSettings, resume: str, say: Callable[[str], None]) -> str:
    """The name of the checkpoint to go on from, which is sound, "" for none."""
    if resume == NEVER:
        return ""
    output = Path(settings.output)
    if resume == AUTO:
        pending = (stage.stage for stage in settings.stages if not (stage_folder(settings, stage) / MODEL).exists())
        found = newest_checkpoint(output, next(pending, 0), say)
        return found.folder.name if found else ""
    return open_checkpoint(output / FOLDER / Path(resume).name).folder.name


def go_back(output: Path, name: str) -> None:
    """Remove what was made after a checkpoint. In this order: a run that is stopped here goes on from no earlier place."""
    for stage in (2, 1):
        if stage >= stage_and_step(name)[0]:
            Store.at(output).remove(f"stage-{stage}/{MODEL}")
    remove_after(output, name)


def stage_folder(settings: PretrainSettings, stage: StageSettings) -> Path:
    """Where the model is after a stage."""
    return Path(settings.output) / f"stage-{stage.stage}"
