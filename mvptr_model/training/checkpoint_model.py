"""The model in a checkpoint: what another run may begin with, whatever its settings and ranks.

Weights are read without running a pickle; optimizer states stay on the disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvptr_data.errors import DamagedFileError, IncompleteError, InputError, MissingDependencyError
from mvptr_data.storage import is_url
from mvptr_model.saved_model import MODEL, SavedModel, load_model
from mvptr_model.training.checkpoints import ENGINE, Checkpoint, open_checkpoint, stage_and_step

#: In a run's folder: the model it began with.
INITIAL = "initial"
#: DeepSpeed's file of the model, and of each rank's part of the optimizer with the float32 weights in it.
_MODEL, _PART = "mp_rank_00_model_states.pt", "*zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"


def load_start(folder: str) -> SavedModel:
    """The model in a folder or at a URL, or in a run's checkpoint.

    Raises what `load_model` and `open_checkpoint` raise, `InputError` for a checkpoint without its run.
    """
    path = Path(folder).absolute()
    if is_url(folder) or (path / MODEL).exists() or stage_and_step(path.name) == (0, 0):
        return load_model(folder)
    checkpoint = open_checkpoint(path)
    run = path.parent.parent
    before = run / "stage-1" if checkpoint.place.stage == 2 and (run / "stage-1").is_dir() else run / INITIAL
    try:
        return with_learned(before, _learned(checkpoint))
    except IncompleteError as error:
        raise InputError(
            f"{folder} has what its stage learned alone, and there is no model in {before} that it began with",
            "Give the checkpoint where its run wrote it.",
        ) from error


def with_learned(before: Path, learned: dict[str, Tensor]) -> SavedModel:
    """The model that a stage began with, with what it learned; the rest as it was, in float32."""
    saved = load_model(before)
    weights = saved.model.state_dict()
    weights |= {name: value.reshape(weights[name].shape) for name, value in learned.items()}
    saved.model.load_state_dict(weights)
    return saved


def _learned(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The float32 weights of all that the stage learns. Raises `DamagedFileError`."""
    engine, place = checkpoint.folder / ENGINE, checkpoint.place
    try:
        states = _read(engine / _MODEL)
        if not place.zero:  # float32, whole, and with what is not learned as it was
            return dict(states["module"])
        parts = [_read(next(engine.glob(_PART.format(rank=rank)))) for rank in range(place.ranks)]
        flat = [part["optimizer_state_dict"]["single_partition_of_fp32_groups"] for part in parts]
        found: dict[str, Tensor] = {}
        for number, shapes in enumerate(states["param_shapes"]):
            whole, begin = torch.cat([one[number].detach() for one in flat]), 0
            for name, shape in shapes.items():
                found[name] = whole[begin : begin + shape.numel()].view(shape)
                begin += shape.numel()
        return found
    except (LookupError, StopIteration, TypeError, AttributeError, RuntimeError) as error:
        raise DamagedFileError(
            f"{checkpoint.folder} has other things than a stage's weights ({error})", "Give another checkpoint."
        ) from error


def _read(path: Path) -> Any:
    """A file of DeepSpeed's, with its own few classes and tensors. Raises `DamagedFileError`."""
    try:
        from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address
    except ImportError as error:
        raise MissingDependencyError(
            "DeepSpeed's checkpoints need DeepSpeed, which is not installed", "pip install 'mvptr-data[train]'"
        ) from error
    try:
        with torch.serialization.safe_globals([DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError:
        raise
    except Exception as error:  # it raises all kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedFileError(f"{path} cannot be read ({reason})", "Give another checkpoint.") from error
