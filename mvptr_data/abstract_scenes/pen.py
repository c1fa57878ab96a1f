"""A pen that draws outlined shapes in unit coordinates, for figures that look the same at every size.

A figure lives in a box of `width` x `height` units whose longer side is 1. The pen draws at four times the size asked
for and averages down, which is the anti-aliasing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Point = tuple[float, float]

#: Pixels drawn per final pixel and direction.
SUPERSAMPLING = 4

#: The outline of everything.
INK: RGB = (34, 30, 38)


def mix(color: RGB, other: RGB, share: float) -> RGB:
    """`color` with `share` of `other` stirred in."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(color, other, strict=True))
    return red, green, blue


def spline(points: Sequence[Point], steps: int = 8) -> list[Point]:
    """A closed Catmull-Rom curve through `points`, as a polygon of `steps` points a span."""
    p = np.asarray(points, dtype=np.float64)
    before, after, beyond = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[None, :, None]
    curve = 0.5 * (
        2 * p[:, None]
        + (after - before)[:, None] * t
        + (2 * before - 5 * p + 4 * after - beyond)[:, None] * t**2
        + (3 * p - before - 3 * after + beyond)[:, None] * t**3
    )
    return [(float(x), float(y)) for x, y in curve.reshape(-1, 2)]


class Pen:
    """Draws one figure in one color; `image()` returns it as RGBA, with a transparent margin."""

    def __init__(self, extent: int, width: float, height: float, color: RGB) -> None:
        self.color = color
        self.dark = mix(color, (0, 0, 0), 0.28)
        self.light = mix(color, (255, 255, 255), 0.30)
        #: Lines inside a colored surface: ink, except on surfaces so dark that ink would vanish.
        self.detail = INK if sum(color) > 240 else (150, 150, 158)
        self._stroke = SUPERSAMPLING * (0.8 + 0.009 * extent)
        # Outlines and round line ends reach a little out of the unit box; what stays empty is cut off by the caller.
        self._margin = 2 * self._stroke
        self._scale = SUPERSAMPLING * extent - self._stroke
        columns, rows = (math.ceil((self._scale * side + 2 * self._margin) / SUPERSAMPLING) for side in (width, height))
        self._image = Image.new("RGBA", (columns * SUPERSAMPLING, rows * SUPERSAMPLING), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self._image)

    def _place(self, points: Sequence[Point]) -> list[Point]:
        return [(self._margin + x * self._scale, self._margin + y * self._scale) for x, y in points]

    def polygon(self, points: Sequence[Point], fill: RGB, *, outlined: bool = True) -> None:
        """A closed polygon; corners of the outline are rounded."""
        placed = self._place(points)
        self._draw.polygon(placed, fill=fill)
        if outlined:
            self._trace([*placed, placed[0]], INK, self._stroke)

    def blob(self, points: Sequence[Point], fill: RGB, *, outlined: bool = True) -> None:
        """A closed smooth shape through `points`."""
        self.polygon(spline(points), fill, outlined=outlined)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, fill: RGB, *, outlined: bool = True) -> None:
        """An upright rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill, outlined=outlined)

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, fill: RGB, *, outlined: bool = True) -> None:
        """An upright ellipse about (cx, cy)."""
        turns = [2 * math.pi * i / 40 for i in range(40)]
        self.polygon([(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in turns], fill, outlined=outlined)

    def line(self, points: Sequence[Point], fill: RGB, width: float, *, outlined: bool = False) -> None:
        """An open stroke of `width` units (never thinner than one final pixel), with round ends."""
        placed = self._place(points)
        pixels = max(width * self._scale, SUPERSAMPLING * 1.0)
        if outlined:
            self._trace(placed, INK, pixels + 2 * self._stroke)
        self._trace(placed, fill, pixels)

    def _trace(self, placed: Sequence[Point], fill: RGB, pixels: float) -> None:
        self._draw.line(placed, fill=fill, width=max(1, round(pixels)), joint="curve")
        radius = pixels / 2
        for x, y in (placed[0], placed[-1]):
            self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    def image(self) -> Image.Image:
        """The drawing at its final size. Alpha is premultiplied while averaging, so that edges take no color from outside."""
        return self._image.convert("RGBa").reduce(SUPERSAMPLING).convert("RGBA")
