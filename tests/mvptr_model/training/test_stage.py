"""A stage: parts of a step with empty slots, and how it ends on a full disk."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch.distributed as dist

from mvptr_data.errors import OutputError
from mvptr_model.training.log import read_log
from mvptr_model.training.pretrain import pretrain
from tests.mvptr_model.training.conftest import Settings
from tests.mvptr_model.training.curve import Heard


@pytest.mark.parametrize(
    ("precision", "zero"), [("fp32", 0), ("fp32", 2), pytest.param("bf16", 1, marks=pytest.mark.slow)]
)
def test_empty_slots_do_not_dilute_a_step(small: Settings, precision: str, zero: int) -> None:
    """48 samples in batches of 40: the second has 8, all in the first of 5 parts. Nothing is learned, so it meets the same model
    in one part."""
    found = []
    for parts in (1, 5):
        batches = {"global_batch": 40, "tail": "pad", "captions": "one", "canonical_streams": 1, "accumulation": parts}
        model = {**small().model, "dropout": 0.0, "attention_dropout": 0.0}
        stages = [{"stage": 1, "steps": 2, "learning_rate": 0.0}]
        run = small(
            str(parts), batches=batches, model=model, stages=stages, zero={"stage": zero}, precision={"type": precision}
        )
        pretrain(run)
        found.append(read_log(Path(run.output))[1])
    whole, parted = found
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    for name in ("losses", "accuracies"):
        assert parted[name] == pytest.approx(whole[name], rel=tolerance)
    assert parted["gradient_norm"] == pytest.approx(whole["gradient_norm"], rel=tolerance)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("tensorboard", [False, True])
def test_a_full_disk_at_a_line_of_the_log_ends_the_run_with_one_error(small: Settings, tensorboard: bool) -> None:
    run = small(stages=[{"stage": 1, "steps": 6}], log={"tensorboard": tensorboard})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    fill = {(1, 2): lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))}
    try:
        with pytest.raises(OutputError, match="File too large"):
            pretrain(run, listener=Heard(fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not dist.is_initialized()
