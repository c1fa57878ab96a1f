"""Finished drawings of things, and their masks, cached: a scene only pastes them.

Caching cannot change a picture: a sprite is a pure function of the four values it is asked for by.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from mvptr_data.abstract_scenes.figures import FIGURES
from mvptr_data.abstract_scenes.pen import Pen
from mvptr_data.abstract_scenes.vocabulary import COLOR_VALUES

#: A pixel belongs to a thing if the thing covers at least half of it (alpha of 255).
COVERED = 128


@lru_cache(maxsize=8192)
def sprite(kind: str, color: str, extent: int, flip: bool) -> Image.Image:
    """The RGBA drawing of a thing, cut to the pixels it covers; treat it as read-only."""
    figure = FIGURES[kind]
    pen = Pen(extent, figure.width, figure.height, COLOR_VALUES[color])
    figure.draw(pen)
    image = pen.image()
    covered = image.getchannel("A").point(lambda alpha: 255 if alpha >= COVERED else 0)
    image = image.crop(covered.getbbox())
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image


@lru_cache(maxsize=1024)
def mask(kind: str, extent: int, flip: bool) -> npt.NDArray[np.bool_]:
    """bool [height, width]: the pixels a thing covers. The same for every color, because color never moves an edge."""
    alpha = np.asarray(sprite(kind, "white", extent, flip).getchannel("A"))
    covered = alpha >= COVERED
    covered.setflags(write=False)
    return covered
