from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvptr_data.errors import InputError
from mvptr_model.configuration import LOSSES
from mvptr_model.training.learned import learned_names
from tests.mvptr_model.random_batches import random_batch, small_configuration, small_model

BATCH = random_batch(3, 8)


def with_gradients(changes: dict[str, Any], stage: int) -> set[str]:
    """The parameters that autograd finds a way to, however small the gradient."""
    model = small_model(small_configuration(**changes))
    model(BATCH, stage=stage).total.backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(LOSSES), min_size=1, unique=True),
    st.booleans(),
    st.sampled_from([1, 2]),
    st.sampled_from(["itm", "own"]),
)
def test_it_is_what_has_a_gradient(losses: list[str], merged: bool, stage: int, negatives: str) -> None:
    if merged:
        losses = [loss for loss in losses if loss != "vsc"]
    changes = {"losses": tuple(losses), "merged_attention": merged, "wpg_negatives": negatives}
    configuration = small_configuration(**changes)
    try:
        configuration.learns(stage)
    except InputError:
        return
    names = [name for name, _ in small_model(configuration).named_parameters()]
    assert learned_names(configuration, stage, names) == with_gradients(changes, stage)


@pytest.mark.parametrize("preset", ["paper", "official"])
@pytest.mark.parametrize("stage", [1, 2])
def test_the_presets(preset: str, stage: int) -> None:
    configuration = small_configuration(preset)
    model = small_model(configuration)
    model(BATCH, stage=stage).total.backward()
    found = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learned_names(configuration, stage, dict(model.named_parameters())) == found
