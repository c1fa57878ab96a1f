"""The learning rate as a function of the step (MVPTR A.2)."""

from __future__ import annotations

from mvptr_model.training.settings import StageSettings


def learning_rate(stage: StageSettings, step: int, steps: int) -> float:
    """Of optimizer step `step` (from 0) of `steps`.

    Linear from `peak / warm-up steps` to the peak over the first `warm_up` share of the steps, then linear towards 0, which
    comes after the last step: no step is made for nothing.
    """
    rising = round(stage.warm_up * steps)
    if step < rising:
        return stage.learning_rate * (step + 1) / rising
    return stage.learning_rate * (steps - step) / (steps - rising)
