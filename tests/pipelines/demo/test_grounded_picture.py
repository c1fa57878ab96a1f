from __future__ import annotations

import numpy as np
from PIL import Image

from mvptr_model.evaluation.grounding import GroundedPhrase
from mvptr_model.evaluation.held_out import TextPlace
from pipelines.demo.grounded_picture import MARGIN, PICTURE, grounded_picture


def test_each_phrase_has_its_box_in_its_color() -> None:
    boxes = np.array([[10, 20, 60, 90], [70, 30, 90, 80]], dtype=np.float32)
    phrases = [
        GroundedPhrase(TextPlace(0, 0), (kind, "red"), region, np.array([True, False]), boxes)
        for kind, region in (("ball", 0), ("kite", 1))
    ]
    sheet = grounded_picture(Image.new("RGB", (100, 100), (128, 128, 128)), "A red ball and a red kite.", phrases)
    pixels, scale = np.asarray(sheet), PICTURE / 100
    rims = []
    for number, phrase in enumerate(phrases):
        x1, y1, x2, y2 = (boxes[phrase.region] * scale).round().astype(int) + MARGIN
        inset = 5 * number + 1
        middle = (y1 + y2) // 2
        left, right = pixels[middle, x1 + inset], pixels[middle, x2 - inset - 1]
        assert np.array_equal(left, right) and not np.array_equal(left, [128, 128, 128])
        assert np.array_equal(pixels[middle, (x1 + x2) // 2], [128, 128, 128])
        rims.append(tuple(left))
    assert rims[0] != rims[1]
    # The words are below the picture, beside a square of the color.
    below = pixels[MARGIN + PICTURE :].reshape(-1, 3)
    assert all((below == rim).all(axis=1).any() for rim in rims)
