"""DeepSpeed's engine around the model: AdamW, ZeRO, precision.

The learning rate is a function of the step (`schedule.py`), set before each one; nothing of it has to be saved.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mvptr_data.errors import MissingDependencyError, MvptrError
from mvptr_model.training.checkpoints import way_back
from mvptr_model.training.processes import World
from mvptr_model.training.settings import PretrainSettings

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

#: DeepSpeed's operator beside gloo: compiling it takes up to a minute and needs a compiler, and results are the same without.
SHM_COMM = "deepspeed_shm_comm"


def open_engine(
    model: nn.Module, settings: PretrainSettings, world: World, *, universal: bool = False
) -> DeepSpeedEngine:
    """The engine that trains those parameters of `model` that require gradients. The model becomes the engine's, in its
    precision. `universal`: checkpoints will be loaded in DeepSpeed's universal form.

    Raises `MissingDependencyError`, `InputError`.
    """
    deepspeed = _deepspeed(world)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameter_groups(learned, settings.optimizer.weight_decay),
        lr=0.0,
        betas=settings.optimizer.betas,
        eps=settings.optimizer.epsilon,
        fused=world.device.type == "cuda",
    )
    numbers = sum(parameter.numel() for parameter in learned)
    configuration = engine_configuration(settings, world.size, numbers)
    if universal:
        configuration["checkpoint"] = {"load_universal": True}
    for parameter in model.parameters():
        if parameter.dim() == 0:  # which its broadcast refuses; `logit_scale` does the same with one dimension
            parameter.data = parameter.data.view(1)
    with quietly():
        engine, *_ = deepspeed.initialize(model=model.to(world.device), optimizer=optimizer, config=configuration)
    return engine


def parameter_groups(learned: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices with weight decay; biases, LayerNorms and `logit_scale`, which are vectors or numbers, without."""
    matrices = [parameter for parameter in learned if parameter.dim() >= 2]
    others = [parameter for parameter in learned if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def engine_configuration(settings: PretrainSettings, world: int, numbers: int) -> dict[str, Any]:
    """DeepSpeed's configuration for `numbers` learned numbers. Raises `InputError` for batches of unequal parts."""
    precision, bucket = settings.precision, min(settings.zero.bucket_size, numbers)
    bucket += bucket % 2  # it wants them even
    return {
        "train_batch_size": settings.batches.global_batch,
        "train_micro_batch_size_per_gpu": settings.batches.micro_batch(world),
        "gradient_accumulation_steps": settings.batches.accumulation,
        "gradient_clipping": settings.optimizer.clipping,
        "steps_per_print": None,
        "zero_optimization": {
            "stage": zero_stage(settings),
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
        },
        "bf16": {"enabled": precision.type == "bf16"},
        "fp16": {
            "enabled": precision.type == "fp16",
            "loss_scale": 0,
            "initial_scale_power": precision.initial_scale_power,
            "loss_scale_window": precision.scale_window,
            "hysteresis": precision.hysteresis,
            "min_loss_scale": precision.min_scale,
        },
    }


def zero_stage(settings: PretrainSettings) -> int:
    """The ZeRO stage that is used: 1 for 0 in half precision. DeepSpeed 0.19 without ZeRO forgets to scale fp16's losses there,
    and has made a step of Adam before the first."""
    return max(settings.zero.stage, 0 if settings.precision.type == "fp32" else 1)


def set_learning_rate(engine: DeepSpeedEngine, rate: float) -> None:
    """For the next optimizer step."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rate


def loss_scale(engine: DeepSpeedEngine) -> float:
    """What losses are multiplied with before the backward pass: 1 but for fp16."""
    return float(engine.optimizer.loss_scale) if engine.fp16_enabled() else 1.0


def step(engine: DeepSpeedEngine, settings: PretrainSettings) -> tuple[float, bool]:
    """Make the optimizer step. Returns the norm of the gradient before clipping, and whether a number in it was infinite, so
    that the step was left out, and fp16's loss scale perhaps lowered.

    Raises `MvptrError` where the loss scale cannot be lowered further.
    """
    norm = None if engine.zero_optimization() else _gradient_norm(engine)
    skipped = engine.skipped_steps
    try:
        engine.step()
    except Exception as error:
        if "loss scale already at minimum" not in str(error):
            raise
        raise MvptrError(
            f"gradients overflow float16 even at the least loss scale, {settings.precision.min_scale}",
            f"{way_back(Path(settings.output))} With precision.type=bf16, in another run, there is no such scale.",
        ) from error
    found = engine.get_global_grad_norm() if norm is None else norm
    return float("nan") if found is None else float(found), engine.skipped_steps > skipped


def full_weights(engine: DeepSpeedEngine, *, kept: bool = True) -> dict[str, Tensor]:
    """The optimizer's float32 weights of every learned parameter, on the CPU, where they are to be `kept`; all ranks call it
    together. What had no dimension has one here."""
    from deepspeed.utils import safe_get_full_fp32_param

    found = {}
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            whole = safe_get_full_fp32_param(parameter) if engine.zero_optimization() else parameter
            if kept:
                found[name] = whole.detach().float().cpu().clone()
    return found


def _gradient_norm(engine: DeepSpeedEngine) -> float:
    """The gradient's norm where DeepSpeed keeps none: without ZeRO."""
    gradients = [parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


def _deepspeed(world: World) -> Any:
    """The module, ready for this device."""
    if world.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it looks for one, and warns
    os.environ.setdefault("LOCAL_RANK", "0")  # without a launcher; it asks for no more than that
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    try:
        with quietly():
            import deepspeed
            import deepspeed.ops
    except ImportError as error:
        raise MissingDependencyError(
            "pre-training needs DeepSpeed, which is not installed", "pip install 'mvptr-data[train]'"
        ) from error
    if world.device.type == "cpu":
        # Without this entry it tries the compiler on every operator there is.
        vars(deepspeed.ops).setdefault("__compatible_ops__", {})[SHM_COMM] = False
        # torch computes in float16 on every CPU; DeepSpeed wants instructions for it.
        deepspeed.get_accelerator().is_fp16_supported = lambda: True
    return deepspeed


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """What DeepSpeed prints on standard output while it starts says nothing about the run."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
