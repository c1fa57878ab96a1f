from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mvptr_data.errors import DamagedFileError, InputError
from pipelines.inspect_sample import MARGIN, PICTURE, TEXT_WIDTH, _color, draw_sample, load_sample


def test_the_picture_shows_pixels_boxes_and_captions(world, published: Path) -> None:  # type: ignore[no-untyped-def]
    sample = load_sample(str(published), "000002")
    assert sample.regions is not None and len(sample.boxes) > 0
    sheet = draw_sample(sample)
    assert sheet.size[0] == PICTURE + TEXT_WIDTH + 3 * MARGIN and sheet.size[1] >= PICTURE + 2 * MARGIN
    pixels = np.asarray(sheet)
    x1, _, _, y2 = (sample.boxes[0] * PICTURE / 256 + MARGIN).round().astype(int)
    corner = pixels[y2 - 4 : y2 + 4, x1 - 4 : x1 + 4].reshape(-1, 3)
    assert (corner == _color(0)).all(axis=1).any(), "the best region's corner is not drawn in its color"
    panel = pixels[:, PICTURE + 2 * MARGIN :]
    words = (panel < 80).all(axis=2).any(axis=1).sum()
    without = np.asarray(draw_sample(replace(sample, captions=())))[:, PICTURE + 2 * MARGIN :]
    assert words > (without < 80).all(axis=2).any(axis=1).sum() + 50, "the captions left no ink"


def test_a_sample_without_its_picture_is_drawn_on_gray(
    data_set: Path, world, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    from pipelines import inspect_sample as module

    away = tmp_path / "away.jpg"
    shutil.copy(world.images / "000001.jpg", away)
    real = module.read_image_bytes
    monkeypatch.setattr(module, "read_image_bytes", lambda ref: real(replace(ref, uri=ref.uri + ".gone")))
    sample = load_sample(str(data_set), "000001")
    assert sample.image is None and "missing_file" in sample.fates["source"]
    assert draw_sample(sample).getpixel((MARGIN + 5, MARGIN + PICTURE - 5)) == (200, 200, 200)


def test_unknown_keys_are_one_clear_error(published: Path) -> None:
    with pytest.raises(InputError, match=r"no key 'zebra'.*'000000'"):
        load_sample(str(published), "zebra")


def test_a_missing_tar_is_one_clear_error(data_set: Path) -> None:
    (data_set / "regions/00000.tar").unlink()
    with pytest.raises(DamagedFileError, match=r"regions/00000\.tar is missing"):
        load_sample(str(data_set), "000000")
