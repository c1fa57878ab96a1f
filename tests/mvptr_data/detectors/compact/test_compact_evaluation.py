"""The measures, on cases small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.abstract_scenes import Thing
from mvptr_data.detectors import Regions
from mvptr_data.detectors.compact.evaluate import main, measure
from mvptr_data.detectors.compact.evaluation import average_precision, evaluate, match
from mvptr_data.detectors.compact.weights import BUNDLED_WEIGHTS, load_weights
from mvptr_data.errors import InputError


def thing(kind: str, color: str, size: str, box: tuple[float, float, float, float]) -> Thing:
    return Thing(kind=kind, color=color, size=size, box=box, visible=1.0, left=0, top=0, extent=30, flip=False)


def regions(*rows: tuple[str, float, tuple[float, float, float, float], tuple[str, str]]) -> Regions:
    """From (tag, score, box, attributes)."""
    count = len(rows)
    return Regions(
        boxes=np.array([row[2] for row in rows], np.float32),
        features=np.zeros((count, 2048), np.float32),
        scores=np.array([row[1] for row in rows], np.float32),
        labels=np.ones(count, np.int32),
        tags=tuple(row[0] for row in rows),
        attributes=tuple(row[3] for row in rows),
        attribute_scores=((0.9, 0.8),) * count,
    )


def test_average_precision_by_hand() -> None:
    # Right, wrong, right of 3 things: precision 1 up to recall 1/3, then 2/3 up to 2/3, then nothing.
    assert average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), 3) == pytest.approx(5 / 9)
    assert average_precision(np.array([0.7, 0.9, 0.8]), np.array([True, True, False]), 3) == pytest.approx(5 / 9)
    assert average_precision(np.array([]), np.array([], dtype=bool), 3) == 0.0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30), st.integers(0, 5))
def test_average_precision_is_a_share_and_all_right_is_one(rows: list[tuple[float, bool]], missed: int) -> None:
    scores, correct = np.array([score for score, _ in rows]), np.array([hit for _, hit in rows])
    things = int(correct.sum()) + missed
    if things:
        assert 0.0 <= average_precision(scores, correct, things) <= correct.sum() / things + 1e-9
    assert average_precision(scores, np.ones(len(rows), dtype=bool), len(rows)) == pytest.approx(1.0)


def test_a_thing_is_found_once_by_the_best_region() -> None:
    iou = np.array([[0.6, 0.7], [0.9, 0.8], [0.9, 0.1], [0.4, 0.4]])
    assert match(iou).tolist() == [1, 0, -1, -1]


def test_evaluation_by_hand() -> None:
    cat, dog = (0.0, 0.0, 40.0, 40.0), (100.0, 100.0, 140.0, 150.0)
    truth = [[thing("cat", "red", "small", cat), thing("dog", "blue", "large", dog)]]
    found = [
        regions(
            ("cat", 0.9, (2.0, 0.0, 40.0, 40.0), ("red", "small")),
            ("car", 0.8, dog, ("blue", "medium")),  # the right place and color, the wrong kind and size
            ("dog", 0.1, dog, ("blue", "large")),  # right, but below the threshold: it counts in the curve alone
        )
    ]
    result = evaluate(found, truth, threshold=0.3)
    assert result.ap50_by_kind == {"cat": 1.0, "dog": 1.0} and result.ap50 == 1.0
    assert result.recall == 0.5 and result.precision == 0.5
    assert result.recall_by_size == {"small": 1.0, "medium": 0.0, "large": 0.0}
    assert (result.color_accuracy, result.size_accuracy, result.attribute_accuracy) == (1.0, 0.5, 0.75)


def test_a_box_half_off_is_a_miss() -> None:
    truth = [[thing("cat", "red", "small", (0.0, 0.0, 40.0, 40.0))]]
    result = evaluate([regions(("cat", 0.9, (20.0, 0.0, 60.0, 40.0), ("red", "small")))], truth, threshold=0.3)
    assert result.ap50 == 0.0 and result.recall == 0.0 and result.attribute_accuracy == 0.0


def test_pictures_seen_in_training_are_refused() -> None:
    seed = load_weights(BUNDLED_WEIGHTS).training["seed"]
    assert isinstance(seed, int)
    with pytest.raises(InputError, match="training's own"):
        measure(BUNDLED_WEIGHTS, pictures=1, seed=seed)


def test_the_command_prints_every_measure(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--pictures", "3", "--precision", "bf16"])
    printed = capsys.readouterr().out
    for expected in ("AP50", "things", "precision", "recall", "small", "color", "size", "pictures/s"):
        assert expected in printed


def test_the_command_ends_with_one_line_on_bad_input() -> None:
    with pytest.raises(SystemExit, match="error: pictures is 0"):
        main(["--pictures", "0"])


@pytest.mark.slow
def test_the_bundled_weights_are_as_good_as_promised() -> None:
    evaluation = measure(BUNDLED_WEIGHTS, pictures=500, seed=20212).evaluation
    assert evaluation.ap50 >= 0.93
    assert evaluation.attribute_accuracy >= 0.97
