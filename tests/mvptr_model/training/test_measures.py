from __future__ import annotations

import math

import pytest
import torch

from mvptr_model.model import Outcome
from mvptr_model.training.measures import Counts, Rates, StepValues, not_finite, shares, temperature
from mvptr_model.training.processes import World
from tests.mvptr_model.random_batches import random_batch


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_ends_a_run(bad: float) -> None:
    fine = {"losses": {"vsc": 1.0, "mlm": 2.0}}
    assert not_finite(fine, 3.0, overflow_allowed=False, stage=1, step=4) is None
    found = not_finite({"losses": {"vsc": 1.0, "mlm": bad}}, 3.0, overflow_allowed=True, stage=2, step=4)
    assert found is not None and f"the loss mlm is {bad} in step 4 of stage 2" in str(found)
    found = not_finite(fine, bad, overflow_allowed=False, stage=1, step=4)
    assert found is not None and "the gradient's norm" in str(found)
    assert not_finite(fine, bad, overflow_allowed=True, stage=1, step=4) is None


def test_empty_slots_are_no_pairs() -> None:
    batch = random_batch(0, 8, empty=2)
    counts = Counts.of([batch, batch], 5.0)
    places = int(batch.text_mask.sum() + batch.tag_mask.sum() + batch.region_mask.sum())
    assert (counts.pairs, counts.places, counts.flops) == (12.0, 2.0 * places, 5.0)


def test_a_starved_rank_keeps_all_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight ranks, of which one waits 3 s in a step of 4 s, and another 1 s in the next."""
    now = [100.0]
    monkeypatch.setattr("mvptr_model.training.measures.time.perf_counter", lambda: now[0])
    rates = Rates(started=now[0])
    for rank, waited in ((5, 3.0), (2, 1.0)):
        waits = [0.0] * 8
        waits[rank] = waited
        rates.add([16.0, 100.0, 0.0], waits)
        now[0] += 4.0
    record = rates.record(World(0, 8, torch.device("cpu")), None)
    assert (record["data_wait"], record["samples_per_second"]) == (0.5, 4.0)


def test_parts_of_a_step_count_by_their_pairs() -> None:
    assert shares([16.0, 16.0, 16.0]) == [1.0, 1.0, 1.0]
    assert shares([8.0, 0.0]) == [2.0, 0.0]
    assert shares([6.0, 3.0, 0.0]) == [2.0, 1.0, 0.0]
    assert shares([0.0, 0.0]) == [1.0, 1.0]
    values = StepValues()
    for loss, share in zip((3.0, 9.0, 0.0), shares([6.0, 3.0, 0.0]), strict=True):
        values.add(Outcome({"mlm": torch.tensor(loss)}, {}), 3, share)
    assert values.numbers() == [5.0]


def test_the_temperature_is_at_least_that_of_the_maximum() -> None:
    assert temperature(torch.tensor([-math.log(0.07)]), 100.0) == pytest.approx(0.07)
    assert temperature(torch.tensor(9.0), 100.0) == pytest.approx(0.01)
    assert temperature(torch.tensor(-1e30), 100.0) is None
