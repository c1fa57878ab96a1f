"""Which of an image's scored regions are kept."""

from __future__ import annotations

from collections.abc import Sequence

from mvptr_data.errors import InputError


def kept_count(scores: Sequence[float], *, threshold: float, minimum: int, maximum: int) -> int:
    """How many of the best regions stay: those at or above `threshold`, but at least `minimum` and at most `maximum`.

    The rule of bottom-up attention (Anderson et al. 2018, released code), which keeps 10 to 100 at 0.2.
    """
    confident = sum(score >= threshold for score in scores)
    return min(max(confident, minimum), maximum, len(scores))


def check_selection(*, threshold: float, minimum: int, maximum: int) -> None:
    """Raises `InputError` for limits that no image could meet."""
    if not 0.0 <= threshold <= 1.0:
        raise InputError(f"score_threshold is {threshold}, a probability is 0 to 1", "Choose one in that range.")
    if not 1 <= minimum <= maximum:
        raise InputError(
            f"min_regions is {minimum} and max_regions {maximum}",
            "Choose 1 <= min_regions <= max_regions: an image has at least one region.",
        )
