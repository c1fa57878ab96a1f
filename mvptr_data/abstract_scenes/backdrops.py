"""Where a scene takes place: sky, ground and the clutter that captions leave out.

Everything is drawn at twice its size and averaged down, then a fixed grain is laid over it at a random offset.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from mvptr_data.abstract_scenes.pen import RGB, mix
from mvptr_data.abstract_scenes.randomness import Stream, generator
from mvptr_data.abstract_scenes.records import CANVAS
from mvptr_data.abstract_scenes.vocabulary import BACKGROUNDS

_SCALE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdrop:
    """A background and its two lines, in pixels from the top: `horizon`, where the sky or wall ends, and `shore`, where
    firm ground begins. Between them is water; without water they are equal."""

    background: str
    horizon: int
    shore: int


def plan_backdrop(seed: int, index: int) -> Backdrop:
    """The backdrop of a scene. Pure."""
    random = generator(seed, index, Stream.BACKDROP)
    background = BACKGROUNDS[random.integers(len(BACKGROUNDS))]
    water = background in ("beach", "lake")
    horizon = int(random.integers(92, 112) if water else random.integers(112, 142))
    shore = horizon + int(random.integers(44, 58)) if water else horizon
    return Backdrop(background=background, horizon=horizon, shore=shore)


class _Painter:
    """Flat shapes on the doubled canvas, in final pixels."""

    def __init__(self, image: Image.Image, random: np.random.Generator) -> None:
        self._draw = ImageDraw.Draw(image)
        self.random = random

    def polygon(self, points: list[tuple[float, float]], fill: RGB) -> None:
        self._draw.polygon([(_SCALE * x, _SCALE * y) for x, y in points], fill=fill)

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, fill: RGB) -> None:
        self._draw.ellipse([_SCALE * v for v in (cx - rx, cy - ry, cx + rx, cy + ry)], fill=fill)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, fill: RGB) -> None:
        self._draw.rectangle((_SCALE * x0, _SCALE * y0, _SCALE * x1 - 1, _SCALE * y1 - 1), fill=fill)

    def line(self, points: list[tuple[float, float]], fill: RGB, width: float) -> None:
        self._draw.line(
            [(_SCALE * x, _SCALE * y) for x, y in points], fill=fill, width=round(_SCALE * width), joint="curve"
        )

    def uniform(self, low: float, high: float) -> float:
        return float(self.random.uniform(low, high))

    def count(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))

    def ridge(self, base: float, height: float, fill: RGB) -> None:
        """A rolling line of hills whose feet stand at `base`."""
        phases = self.random.uniform(0, 2 * math.pi, 2)
        points = [
            (float(x), base - height * (0.5 + 0.3 * math.sin(x / 34 + phases[0]) + 0.2 * math.sin(x / 15 + phases[1])))
            for x in range(0, CANVAS + 8, 8)
        ]
        self.polygon([(0.0, base + 2), *points, (float(CANVAS), base + 2)], fill)

    def clouds(self, count: int, fill: RGB, below: float) -> None:
        for _ in range(count):
            x, y, size = self.uniform(0, CANVAS), self.uniform(8, below), self.uniform(9, 17)
            for dx, dy, share in ((-1.1, 0.15, 0.62), (0.0, -0.2, 0.9), (1.1, 0.1, 0.7), (0.2, 0.35, 0.8)):
                self.ellipse(x + dx * size, y + dy * size, size * share, size * share * 0.62, fill)

    def tufts(self, top: float, count: int, fill: RGB) -> None:
        for _ in range(count):
            x, y = self.uniform(2, CANVAS - 2), self.uniform(top + 6, CANVAS - 2)
            for lean in (-3, 0, 3):
                self.line([(x, y), (x + lean, y - 5)], fill, 1)

    def pebbles(self, top: float, count: int, fill: RGB) -> None:
        for _ in range(count):
            x, y, size = self.uniform(2, CANVAS - 2), self.uniform(top + 6, CANVAS - 3), self.uniform(1.2, 3.2)
            self.ellipse(x, y, size * 1.4, size, mix(fill, (255, 255, 255), self.uniform(0, 0.25)))


@lru_cache(maxsize=64)
def _gradient(top: RGB, bottom: RGB, rows: int) -> Image.Image:
    """`rows` doubled rows that pass from one color to the other."""
    share = np.linspace(0, 1, rows * _SCALE)[:, None]
    column = np.rint(np.asarray(top) * (1 - share) + np.asarray(bottom) * share).astype(np.uint8)
    return Image.fromarray(column[:, None, :].copy()).resize((CANVAS * _SCALE, rows * _SCALE), Image.Resampling.NEAREST)


@lru_cache(maxsize=1)
def _grain() -> Image.Image:
    """RGB, 2 * CANVAS square: fine noise over soft noise about a middle gray of 128, the same for every scene."""
    random = np.random.Generator(np.random.Philox(20130623))
    side = 2 * CANVAS
    fine = random.normal(0, 2.4, (side, side))
    soft = Image.fromarray(random.normal(0, 2.4, (side // 16, side // 16)).astype(np.float32))
    grain = 128 + fine + np.asarray(soft.resize((side, side), Image.Resampling.BICUBIC))
    return Image.merge("RGB", [Image.fromarray(np.clip(np.rint(grain), 0, 255).astype(np.uint8))] * 3)


def _sun(paint: _Painter) -> None:
    x = paint.uniform(14, CANVAS - 14)
    paint.ellipse(x, 0, 26, 26, (255, 240, 190))
    paint.ellipse(x, 0, 19, 19, (255, 231, 150))


def _meadow(paint: _Painter, drop: Backdrop) -> None:
    if paint.random.random() < 0.5:
        _sun(paint)
    paint.clouds(paint.count(1, 4), (248, 251, 253), drop.horizon - 30)
    paint.ridge(drop.horizon, 34, (150, 190, 142))
    paint.ridge(drop.horizon, 18, (164, 202, 134))
    paint.tufts(drop.shore, paint.count(14, 30), (124, 164, 92))
    paint.pebbles(drop.shore, paint.count(0, 6), (164, 164, 152))


def _waves(paint: _Painter, drop: Backdrop, fill: RGB) -> None:
    for _ in range(paint.count(8, 16)):
        x, y = paint.uniform(0, CANVAS), paint.uniform(drop.horizon + 4, drop.shore - 6)
        paint.line([(x, y), (x + 4, y - 2), (x + 8, y), (x + 12, y - 2), (x + 16, y)], fill, 1)


def _bank(paint: _Painter, shore: float, fill: RGB) -> None:
    phase = paint.uniform(0, 2 * math.pi)
    points = [(float(x), shore + 3 * math.sin(x / 26 + phase)) for x in range(0, CANVAS + 8, 8)]
    paint.polygon([*points, (float(CANVAS), shore + 12), (0.0, shore + 12)], fill)


def _beach(paint: _Painter, drop: Backdrop) -> None:
    _sun(paint)
    paint.clouds(paint.count(0, 3), (250, 250, 250), drop.horizon - 26)
    _waves(paint, drop, (214, 236, 242))
    _bank(paint, drop.shore - 4, (244, 240, 224))
    _bank(paint, drop.shore, (240, 222, 176))
    paint.pebbles(drop.shore, paint.count(8, 20), (206, 178, 134))
    for _ in range(paint.count(1, 5)):  # shells
        x, y = paint.uniform(6, CANVAS - 6), paint.uniform(drop.shore + 14, CANVAS - 6)
        paint.polygon([(x, y), (x - 5, y - 5), (x - 2, y - 7), (x + 2, y - 7), (x + 5, y - 5)], (250, 232, 220))
        paint.line([(x, y), (x, y - 6)], (214, 178, 160), 0.5)


def _lake(paint: _Painter, drop: Backdrop) -> None:
    paint.clouds(paint.count(1, 3), (246, 249, 252), drop.horizon - 36)
    paint.ridge(drop.horizon, 52, (162, 176, 196))
    paint.ridge(drop.horizon, 22, (144, 178, 146))
    _waves(paint, drop, (190, 218, 230))
    _bank(paint, drop.shore, (176, 208, 140))
    for _ in range(paint.count(4, 10)):  # reeds
        x, y = paint.uniform(0, CANVAS), drop.shore + paint.uniform(2, 8)
        paint.line([(x, y), (x + 1, y - 12)], (112, 140, 84), 1)
        paint.ellipse(x + 1, y - 13, 1.4, 3.4, (138, 108, 72))
    paint.tufts(drop.shore, paint.count(8, 22), (130, 168, 96))


def _room(paint: _Painter, drop: Backdrop) -> None:
    paper = (226, 214, 190)
    for stripe in range(paint.count(0, 11), CANVAS, 24):  # wallpaper
        paint.rectangle(stripe, 0, stripe + 9, drop.horizon, paper)
    for left_half in range(2):  # windows and pictures
        x, y = left_half * CANVAS / 2 + paint.uniform(8, CANVAS / 2 - 60), paint.uniform(8, 22)
        if paint.random.random() < 0.35:
            continue
        if paint.random.random() < 0.5:
            paint.rectangle(x, y, x + 50, y + 58, (250, 248, 240))
            for left, top in ((4, 4), (27, 4), (4, 31), (27, 31)):
                paint.rectangle(x + left, y + top, x + left + 19, y + top + 23, (194, 220, 236))
        else:
            paint.rectangle(x, y, x + 46, y + 36, (158, 124, 84))
            paint.rectangle(x + 4, y + 4, x + 42, y + 32, (222, 226, 206))
            paint.polygon(
                [
                    (x + 4, y + 32),
                    (x + 17, y + 15),
                    (x + 27, y + 25),
                    (x + 34, y + 18),
                    (x + 42, y + 28),
                    (x + 42, y + 32),
                ],
                (170, 186, 160),
            )
    paint.rectangle(0, drop.horizon - 7, CANVAS, drop.horizon, (244, 238, 226))
    for y in (0.0, 0.2, 0.46, 0.78):  # floor boards
        row = drop.horizon + y * (CANVAS - drop.horizon)
        paint.line([(0, row), (CANVAS, row)], (184, 150, 112), 1)
        for _ in range(3):
            x = paint.uniform(0, CANVAS)
            paint.line([(x, row), (x, row + 0.2 * (CANVAS - drop.horizon))], (184, 150, 112), 1)
    if paint.random.random() < 0.6:  # rug
        x, y = paint.uniform(70, CANVAS - 70), paint.uniform(drop.horizon + 50, CANVAS - 24)
        paint.ellipse(x, y, 66, 17, (176, 160, 170))
        paint.ellipse(x, y, 58, 13, (204, 190, 194))


def _snow(paint: _Painter, drop: Backdrop) -> None:
    paint.ridge(drop.horizon, 56, (188, 202, 220))
    paint.ridge(drop.horizon, 24, (214, 224, 236))
    for _ in range(paint.count(3, 7)):  # drifts
        x, y = paint.uniform(0, CANVAS), paint.uniform(drop.shore + 12, CANVAS)
        paint.ellipse(x, y, paint.uniform(24, 50), 5, (216, 226, 238))
    for _ in range(paint.count(30, 70)):  # flakes
        paint.ellipse(paint.uniform(0, CANVAS), paint.uniform(0, drop.horizon + 30), 1.3, 1.3, (250, 252, 255))


def _street(paint: _Painter, drop: Backdrop) -> None:
    x = -paint.uniform(0, 20)
    while x < CANVAS:  # a skyline
        width, height = paint.uniform(26, 46), paint.uniform(30, 78)
        wall = mix((186, 184, 188), (208, 196, 186), paint.uniform(0, 1))
        paint.rectangle(x, drop.horizon - height, x + width, drop.horizon, wall)
        pane = mix(wall, (255, 255, 255), 0.35)
        for left in np.arange(x + 5, x + width - 7, 10):
            for top in np.arange(drop.horizon - height + 6, drop.horizon - 10, 13):
                paint.rectangle(float(left), float(top), float(left) + 5, float(top) + 7, pane)
        x += width + paint.uniform(0, 8)
    paint.rectangle(0, drop.horizon, CANVAS, drop.horizon + 22, (206, 202, 194))
    for joint in range(paint.count(0, 19), CANVAS, 22):  # paving stones
        paint.line([(joint, drop.horizon), (joint - 8, drop.horizon + 22)], (186, 182, 174), 1)
    paint.line([(0, drop.horizon + 22), (CANVAS, drop.horizon + 22)], (160, 156, 150), 2)
    middle = (drop.horizon + 22 + CANVAS) / 2
    for x in range(paint.count(-30, 0), CANVAS, 52):  # road marks
        paint.polygon(
            [(x + 4, middle - 2), (x + 32, middle - 2), (x + 30, middle + 2), (x, middle + 2)], (226, 224, 214)
        )
    for _ in range(paint.count(0, 2)):  # puddles
        paint.ellipse(
            paint.uniform(20, CANVAS - 20),
            paint.uniform(drop.horizon + 40, CANVAS - 8),
            paint.uniform(10, 20),
            4,
            (164, 178, 190),
        )


@dataclass(frozen=True, slots=True)
class _Looks:
    """Colors of sky (top, bottom), water and ground, and the painter of what stands in front of them."""

    sky: tuple[RGB, RGB]
    water: tuple[RGB, RGB]
    ground: tuple[RGB, RGB]
    paint: Callable[[_Painter, Backdrop], None]


_NO_WATER: tuple[RGB, RGB] = ((0, 0, 0), (0, 0, 0))
_LOOKS: dict[str, _Looks] = {
    "beach": _Looks(
        ((150, 206, 238), (216, 238, 246)),
        ((104, 178, 206), (160, 212, 220)),
        ((240, 222, 176), (226, 202, 150)),
        _beach,
    ),
    "lake": _Looks(
        ((170, 204, 232), (224, 236, 242)),
        ((128, 176, 204), (156, 196, 214)),
        ((176, 208, 140), (150, 188, 112)),
        _lake,
    ),
    "meadow": _Looks(((158, 206, 244), (222, 238, 248)), _NO_WATER, ((178, 212, 136), (148, 192, 106)), _meadow),
    "room": _Looks(((236, 226, 206), (230, 218, 196)), _NO_WATER, ((208, 176, 136), (194, 158, 116)), _room),
    "snow": _Looks(((168, 194, 226), (218, 230, 242)), _NO_WATER, ((242, 246, 252), (226, 235, 246)), _snow),
    "street": _Looks(((188, 208, 226), (228, 232, 236)), _NO_WATER, ((176, 174, 174), (158, 156, 158)), _street),
}


def draw_backdrop(seed: int, index: int) -> Image.Image:
    """The picture without its things, RGB, CANVAS x CANVAS. Pure."""
    drop = plan_backdrop(seed, index)
    random = generator(seed, index, Stream.BACKDROP).spawn(1)[0]
    looks = _LOOKS[drop.background]
    doubled = Image.new("RGB", (CANVAS * _SCALE, CANVAS * _SCALE))
    doubled.paste(_gradient(*looks.sky, drop.horizon), (0, 0))
    if drop.shore > drop.horizon:
        doubled.paste(_gradient(*looks.water, drop.shore - drop.horizon), (0, drop.horizon * _SCALE))
    doubled.paste(_gradient(*looks.ground, CANVAS - drop.shore), (0, drop.shore * _SCALE))
    looks.paint(_Painter(doubled, random), drop)
    row, column = (int(v) for v in random.integers(0, CANVAS, 2))
    light = random.uniform(0.94, 1.03)
    lit = doubled.reduce(_SCALE).point([min(255, round(value * light)) for value in range(256)] * 3)
    return ImageChops.add(lit, _grain().crop((column, row, column + CANVAS, row + CANVAS)), scale=1.0, offset=-128)
