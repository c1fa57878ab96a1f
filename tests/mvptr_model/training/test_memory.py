"""Bytes that are planned are those that DeepSpeed's engine has, and autograd keeps."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mvptr_model.model import Mvptr
from mvptr_model.training import engine as engines
from mvptr_model.training.engine import zero_stage
from mvptr_model.training.memory import activation_bytes, memory_of, saved_bytes
from mvptr_model.training.processes import joined
from mvptr_model.training.settings import (
    BatchSettings,
    InitialSettings,
    PrecisionSettings,
    PretrainSettings,
    ZeroSettings,
)
from tests.mvptr_model.random_batches import random_batch, small_configuration
from tests.mvptr_model.training.ranks import free_port

#: So many bytes are the model's that nothing else counts.
WIDE = {"hidden_size": 128, "heads": 4, "feed_forward_size": 256}


def settings(precision: str, zero: int) -> PretrainSettings:
    return PretrainSettings(
        data=("-",),
        output="-",
        initial=InitialSettings(bert="-"),
        batches=BatchSettings(global_batch=8),
        precision=PrecisionSettings(type=precision),  # type: ignore[arg-type]
        zero=ZeroSettings(stage=zero),
    )


def alive() -> dict[int, tuple[int, torch.Tensor]]:
    """Every tensor's memory by its address."""
    found = {}
    for one in gc.get_objects():
        if type(one) in (torch.Tensor, torch.nn.Parameter):
            for tensor in (one, one.grad) if one.is_leaf else (one,):
                if tensor is not None:
                    storage = tensor.untyped_storage()
                    found[storage.data_ptr()] = (storage.nbytes(), tensor)
    return found


def measured(precision: str, zero: int) -> dict[str, int]:
    """Bytes of a real engine before its optimizer's step and in it, the second time; and the numbers of its model."""
    with joined() as world:
        gc.collect()
        before = alive()  # held, so that no address is used again

        def count() -> int:
            gc.collect()
            return sum(size for address, (size, _) in alive().items() if address not in before)

        model = Mvptr(small_configuration(**WIDE))
        numbers = sum(parameter.numel() for parameter in model.parameters())
        chosen = settings(precision, zero)
        engine = engines.open_engine(model, chosen, world)
        found = {"numbers": numbers}
        inner: Any = getattr(engine.optimizer, "optimizer", engine.optimizer)
        step = inner.step

        def counted(*arguments: Any, **options: Any) -> Any:
            found.setdefault("step", count())  # ZeRO makes one step a group, each with less left to convert
            return step(*arguments, **options)

        last = (
            engine.module.bert.embeddings.word_embeddings.weight
        )  # whose gradient comes when nearly all others are there
        for number in range(2):
            if number:
                inner.step = counted
                last.register_post_accumulate_grad_hook(lambda _: found.update(during=count()))
            engines.set_learning_rate(engine, 1e-4)
            loss = engine(random_batch(number, 8 // world.size), stage=2, step=number).total
            engine.backward(loss)
            del loss
            if number:
                found["backward"] = count()
            engines.step(engine, chosen)
        engine.destroy()
        return found


def check(found: dict[str, int], precision: str, zero: int, world: int) -> None:
    numbers = found["numbers"]
    expected = memory_of(settings(precision, zero), numbers=numbers, learned=numbers, world=world, activations=0)
    states = expected.weights + expected.gradients + expected.optimizer
    assert found["backward"] == pytest.approx(states, rel=0.03)
    # With one bucket for all, ZeRO 2 has no gradient of its own part before the bucket is reduced.
    most = states + expected.reducing
    least = most - (expected.gradients if zero_stage(settings(precision, zero)) == 2 else 0)
    assert 0.85 * least < found["during"] < 1.1 * most
    assert found["step"] == pytest.approx(states + expected.stepping, rel=0.03)


@pytest.mark.parametrize(
    ("precision", "zero"),
    [
        ("fp32", 0),
        ("bf16", 1),
        ("fp32", 2),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("fp32", 1), ("bf16", 0), ("bf16", 2), ("fp16", 2))),
    ],
)
def test_an_engine_has_what_is_planned(precision: str, zero: int) -> None:
    check(measured(precision, zero), precision, zero, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "zero"), [("fp32", 0), ("fp32", 1), ("fp32", 2), ("bf16", 1), ("bf16", 2)])
def test_two_ranks_share_what_is_planned(precision: str, zero: int) -> None:
    root = Path(__file__).resolve().parents[3]
    code = (
        "import json; from tests.mvptr_model.training.test_memory import measured;"
        f"print(json.dumps(measured({precision!r}, {zero})))"
    )
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "PYTHONPATH": str(root)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in running:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        check(json.loads(output.splitlines()[-1]), precision, zero, 2)


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_grow_as_planned(stage: int, dtype: torch.dtype) -> None:
    """From 4 and 8 pairs to 48, against what autograd keeps of 48."""
    model = Mvptr(small_configuration(**WIDE, dropout=0.1)).to(dtype)
    batches = [random_batch(number, pairs) for number, pairs in ((1, 4), (2, 8))]
    estimated = activation_bytes(model, batches, 48, stage=stage)
    assert estimated == pytest.approx(saved_bytes(model, random_batch(3, 48), stage=stage), rel=0.15)


def test_kept_bytes_are_those_of_the_formula() -> None:
    """One linear layer and a GELU keep the input and the sum before the GELU; the weights are nobody's activations."""
    layer = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU())

    class Outcome(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, batch: torch.Tensor, *, stage: int) -> torch.Tensor:
            return self.layer(batch)

    rows = torch.randn(5, 16)
    assert saved_bytes(Outcome(), rows, stage=1) == 4 * (5 * 16 + 5 * 32)  # type: ignore[arg-type]
    assert activation_bytes(Outcome(), [rows], 15, stage=1) == 3 * 4 * (5 * 16 + 5 * 32)  # type: ignore[arg-type, list-item]


def test_what_is_needed_at_once() -> None:
    """Activations and the gradients that the step copies are never there together."""
    found = memory_of(settings("bf16", 2), numbers=1000, learned=800, world=4, activations=50)
    assert (found.weights, found.gradients, found.optimizer) == (2000, 400, 12 * 200)
    assert (found.reducing, found.stepping, found.activations) == (1600, 800, 50)
    assert found.most == 2000 + 400 + 2400 + 1650
    for zero in (0, 1):  # in half precision one is the other
        first = memory_of(settings("fp16", zero), numbers=1000, learned=800, world=4, activations=50)
        assert first.reducing == 1600 + 2 * 600 and first.gradients == 400
    few = memory_of(settings("fp32", 0), numbers=1000, learned=800, world=4, activations=50)
    assert (few.weights, few.gradients, few.optimizer, few.reducing, few.stepping) == (4000, 3200, 6400, 0, 0)
    assert few.most == 4000 + 3200 + 6400 + 50
