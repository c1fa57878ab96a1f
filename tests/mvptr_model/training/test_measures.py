from __future__ import annotations

import math

import pytest
import torch

from mvptr_model.training.measures import Counts, not_finite, temperature
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
    counts = Counts.of([batch, batch], 5.0, 0.5)
    places = int(batch.text_mask.sum() + batch.tag_mask.sum() + batch.region_mask.sum())
    assert (counts.pairs, counts.places, counts.flops, counts.waited) == (12.0, 2.0 * places, 5.0, 0.5)


def test_the_temperature_is_at_least_that_of_the_maximum() -> None:
    assert temperature(torch.tensor([-math.log(0.07)]), 100.0) == pytest.approx(0.07)
    assert temperature(torch.tensor(9.0), 100.0) == pytest.approx(0.01)
    assert temperature(torch.tensor(-1e30), 100.0) is None
