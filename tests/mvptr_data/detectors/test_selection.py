"""How many regions an image keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.detectors.selection import check_selection, kept_count
from mvptr_data.errors import InputError

score_lists = st.lists(st.floats(0, 1), min_size=1, max_size=60).map(lambda scores: sorted(scores, reverse=True))


@given(scores=score_lists, threshold=st.floats(0, 1), minimum=st.integers(1, 20), more=st.integers(0, 40))
def test_the_confident_are_kept_within_the_limits(
    scores: list[float], threshold: float, minimum: int, more: int
) -> None:
    maximum = minimum + more
    count = kept_count(scores, threshold=threshold, minimum=minimum, maximum=maximum)
    assert min(minimum, len(scores)) <= count <= min(maximum, len(scores))
    if count < len(scores) and count < maximum:
        assert scores[count] < threshold  # the first one left out is below, or the limit was reached
    if count > minimum:
        assert scores[count - 1] >= threshold


@pytest.mark.parametrize(
    ("threshold", "minimum", "maximum"),
    [(-0.1, 1, 10), (1.1, 1, 10), (0.3, 0, 10), (0.3, 11, 10), (float("nan"), 1, 10)],
)
def test_limits_that_no_image_meets_are_refused(threshold: float, minimum: int, maximum: int) -> None:
    with pytest.raises(InputError):
        check_selection(threshold=threshold, minimum=minimum, maximum=maximum)
