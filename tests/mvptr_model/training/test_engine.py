from __future__ import annotations

import deepspeed
import deepspeed.ops
import pytest
import torch
from deepspeed.ops.op_builder.cpu.comm import ShareMemCommBuilder

from mvptr_model.training.engine import SHM_COMM, full_weights, open_engine, parameter_groups, set_learning_rate, step
from mvptr_model.training.processes import joined
from tests.mvptr_model.random_batches import random_batch, small_configuration, small_model
from tests.mvptr_model.training.conftest import Settings


def test_only_matrices_decay() -> None:
    model = small_model(small_configuration("official"))
    matrices, others = parameter_groups(list(model.parameters()), 0.01)
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    plain = {names[id(parameter)] for parameter in others["params"]}
    assert plain == {
        name for name in names.values() if name.endswith("bias") or "LayerNorm" in name or name == "logit_scale"
    }
    assert len(matrices["params"]) + len(plain) == len(names)


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_a_step_is_torchs_own(small: Settings, zero: int) -> None:
    """Clipping, weight decay and all, against `clip_grad_norm_` and `AdamW`."""
    settings = small(
        zero={"stage": zero}, batches={"global_batch": 8}, optimizer={"clipping": 1.0, "weight_decay": 0.1}
    )
    model, other = (small_model(small_configuration()).float() for _ in range(2))
    optimizer = torch.optim.AdamW(parameter_groups(list(other.parameters()), 0.1), lr=3e-3, eps=1e-8)
    with joined() as world:
        engine = open_engine(model, settings, world)
        for number in range(3):
            batch = random_batch(number, 8)
            set_learning_rate(engine, 3e-3)
            engine.backward(engine(batch, stage=2).total)
            norm, skipped = step(engine, settings)
            optimizer.zero_grad()
            other(batch, stage=2).total.backward()
            assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)), rel=1e-4)
            optimizer.step()
            assert norm > 1 and not skipped
        found = full_weights(engine)
    for name, value in other.state_dict().items():
        if name.endswith("key.bias"):  # nothing depends on it, and Adam makes steps of its rounding errors
            continue
        torch.testing.assert_close(found[name].reshape(value.shape), value, rtol=1e-3, atol=2e-5)


def test_nothing_is_compiled(small: Settings) -> None:
    """DeepSpeed would build an operator of this name for gloo, with a compiler, for a minute."""
    assert ShareMemCommBuilder.NAME == SHM_COMM
    with joined() as world:
        open_engine(small_model().float(), small(batches={"global_batch": 8}), world)
        assert deepspeed.ops.__compatible_ops__[SHM_COMM] is False
        assert not deepspeed.comm.comm.cdb.shm_comm_op
