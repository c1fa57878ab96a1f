from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvptr_data.errors import IncompleteError
from pipelines.learning_curves import draw_curves, smoothed


def test_a_picture_of_two_stages(tmp_path: Path) -> None:
    lines = []
    for stage, losses in ((1, {"vsc": 2.0}), (2, {"vsc": 1.0, "mlm": 3.0})):
        for step in range(1, 9):
            lines.append(
                {
                    "stage": stage,
                    "step": step,
                    "samples": 16 * step,
                    "loss": sum(losses.values()) / step,
                    "losses": losses,
                    "accuracies": {"vsc": step / 8},
                    "learning_rate": 1e-4,
                    "gradient_norm": None if step == 3 else 2.0,
                    "samples_per_second": 100.0,
                }
            )
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    picture = draw_curves(tmp_path)
    assert Image.open(io.BytesIO(picture)).size == (1920, 1008)
    assert picture == draw_curves(str(tmp_path))
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:8]))
    assert draw_curves(tmp_path) != picture


def test_without_a_log(tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match=r"no log\.jsonl"):
        draw_curves(tmp_path)


def test_smoothing_keeps_what_is_constant_and_the_length() -> None:
    assert smoothed(np.full(100, 3.0)) == pytest.approx(np.full(100, 3.0))
    values = np.arange(100.0)
    assert len(smoothed(values)) == 100
    assert smoothed(values)[10:-10] == pytest.approx(values[10:-10])
