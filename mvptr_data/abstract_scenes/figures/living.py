"""Animals, plants and people. Unit coordinates: x to the right, y down, the longer side 1."""

from __future__ import annotations

import math

from mvptr_data.abstract_scenes.figures.materials import BEAK, HAIR, RUBBER, SHINE, SKIN, STEM, WOOD
from mvptr_data.abstract_scenes.pen import Pen, Point


def _ring(cx: float, cy: float, radius: float, count: int, turn: float = 0.0) -> list[Point]:
    """`count` points evenly on a circle, the first at angle `turn` (radians, clockwise from the right)."""
    angles = [turn + 2 * math.pi * i / count for i in range(count)]
    return [(cx + radius * math.cos(a), cy + radius * math.sin(a)) for a in angles]


def _face(pen: Pen, x: float, y: float) -> None:
    for side in (-0.05, 0.05):
        pen.ellipse(x + side, y, 0.017, 0.017, RUBBER, outlined=False)
    pen.line([(x - 0.045, y + 0.06), (x, y + 0.08), (x + 0.045, y + 0.06)], (176, 72, 64), 0.018)


def bird(pen: Pen) -> None:
    pen.polygon([(0.80, 0.40), (1.0, 0.47), (0.80, 0.54)], BEAK)
    pen.polygon([(0.20, 0.55), (0.0, 0.42), (0.03, 0.60), (0.0, 0.74), (0.22, 0.66)], pen.dark)
    pen.line([(0.44, 0.78), (0.42, 0.88)], BEAK, 0.035)
    pen.line([(0.56, 0.78), (0.56, 0.88)], BEAK, 0.035)
    pen.blob(
        [
            (0.14, 0.60),
            (0.34, 0.48),
            (0.56, 0.42),
            (0.70, 0.30),
            (0.84, 0.36),
            (0.84, 0.54),
            (0.70, 0.74),
            (0.48, 0.82),
            (0.26, 0.74),
        ],
        pen.color,
    )
    pen.polygon([(0.60, 0.58), (0.52, 0.26), (0.30, 0.0), (0.24, 0.24), (0.30, 0.46), (0.40, 0.62)], pen.dark)
    pen.ellipse(0.73, 0.42, 0.045, 0.045, SHINE, outlined=False)
    pen.ellipse(0.74, 0.42, 0.022, 0.022, RUBBER, outlined=False)


def boy(pen: Pen) -> None:
    for x in (0.17, 0.31):
        pen.rectangle(x, 0.74, x + 0.09, 0.95, SKIN)
        pen.ellipse(x + 0.06, 0.96, 0.08, 0.04, RUBBER)
    pen.polygon(
        [(0.12, 0.62), (0.45, 0.62), (0.44, 0.82), (0.31, 0.82), (0.285, 0.72), (0.26, 0.82), (0.13, 0.82)],
        (112, 118, 132),
    )
    pen.line([(0.14, 0.40), (0.05, 0.60)], SKIN, 0.065, outlined=True)
    pen.line([(0.42, 0.40), (0.55, 0.47)], SKIN, 0.065, outlined=True)
    pen.polygon(
        [
            (0.15, 0.33),
            (0.42, 0.33),
            (0.50, 0.40),
            (0.47, 0.49),
            (0.44, 0.47),
            (0.45, 0.66),
            (0.12, 0.66),
            (0.13, 0.49),
            (0.09, 0.51),
            (0.05, 0.44),
        ],
        pen.color,
    )
    pen.ellipse(0.285, 0.19, 0.145, 0.15, SKIN)
    pen.polygon(
        [
            (0.14, 0.17),
            (0.15, 0.08),
            (0.21, 0.01),
            (0.36, 0.01),
            (0.42, 0.07),
            (0.43, 0.12),
            (0.55, 0.14),
            (0.55, 0.17),
        ],
        pen.dark,
    )
    _face(pen, 0.30, 0.21)


def cat(pen: Pen) -> None:
    pen.line([(0.52, 0.92), (0.66, 0.86), (0.68, 0.70), (0.62, 0.60)], pen.color, 0.07, outlined=True)
    pen.blob(
        [(0.30, 0.42), (0.46, 0.50), (0.58, 0.74), (0.58, 0.94), (0.30, 1.0), (0.02, 0.94), (0.02, 0.74), (0.14, 0.50)],
        pen.color,
    )
    pen.line([(0.23, 0.72), (0.23, 0.96)], pen.detail, 0.02)
    pen.line([(0.37, 0.72), (0.37, 0.96)], pen.detail, 0.02)
    pen.polygon([(0.07, 0.24), (0.06, 0.0), (0.25, 0.12)], pen.color)
    pen.polygon([(0.53, 0.24), (0.54, 0.0), (0.35, 0.12)], pen.color)
    pen.ellipse(0.30, 0.29, 0.27, 0.22, pen.color)
    for x in (0.20, 0.40):
        pen.ellipse(x, 0.26, 0.045, 0.05, (232, 236, 150), outlined=False)
        pen.ellipse(x, 0.26, 0.018, 0.045, RUBBER, outlined=False)
    pen.polygon([(0.26, 0.34), (0.34, 0.34), (0.30, 0.39)], (226, 130, 130), outlined=False)
    for side in (-1, 1):
        for drop in (-0.02, 0.04):
            pen.line([(0.30 + side * 0.09, 0.38), (0.30 + side * 0.25, 0.37 + drop)], pen.detail, 0.012)


def dog(pen: Pen) -> None:
    pen.line([(0.14, 0.44), (0.05, 0.34), (0.05, 0.18)], pen.color, 0.06, outlined=True)
    for x in (0.20, 0.56):
        pen.polygon([(x, 0.56), (x + 0.09, 0.56), (x + 0.09, 0.80), (x, 0.80)], pen.dark)
    pen.blob(
        [
            (0.12, 0.42),
            (0.36, 0.40),
            (0.60, 0.36),
            (0.70, 0.44),
            (0.68, 0.62),
            (0.44, 0.66),
            (0.18, 0.66),
            (0.08, 0.56),
        ],
        pen.color,
    )
    for x in (0.10, 0.46):
        pen.polygon([(x, 0.56), (x + 0.10, 0.56), (x + 0.10, 0.82), (x, 0.82)], pen.color)
    pen.blob(
        [
            (0.56, 0.20),
            (0.64, 0.06),
            (0.78, 0.06),
            (0.84, 0.20),
            (0.98, 0.24),
            (1.0, 0.34),
            (0.90, 0.41),
            (0.74, 0.42),
            (0.60, 0.38),
        ],
        pen.color,
    )
    pen.blob([(0.62, 0.04), (0.70, 0.10), (0.70, 0.30), (0.63, 0.38), (0.55, 0.30), (0.55, 0.12)], pen.dark)
    pen.ellipse(0.965, 0.25, 0.035, 0.03, RUBBER)
    pen.ellipse(0.79, 0.18, 0.028, 0.028, SHINE, outlined=False)
    pen.ellipse(0.795, 0.18, 0.016, 0.016, RUBBER, outlined=False)
    pen.line([(0.60, 0.42), (0.72, 0.46)], (206, 60, 50), 0.035)


def flower(pen: Pen) -> None:
    pen.line([(0.31, 0.5), (0.32, 1.0)], STEM, 0.05, outlined=True)
    pen.blob([(0.32, 0.88), (0.42, 0.72), (0.58, 0.70), (0.50, 0.84)], STEM)
    pen.blob([(0.32, 0.92), (0.22, 0.78), (0.06, 0.76), (0.14, 0.88)], STEM)
    for x, y in _ring(0.31, 0.31, 0.19, 6, math.pi / 2):
        pen.ellipse(x, y, 0.12, 0.12, pen.color)
    pen.ellipse(0.31, 0.31, 0.12, 0.12, (178, 112, 40))


def girl(pen: Pen) -> None:
    for x in (0.18, 0.32):
        pen.rectangle(x, 0.78, x + 0.07, 0.95, SKIN)
        pen.ellipse(x + 0.05, 0.96, 0.07, 0.04, RUBBER)
    for x in (0.06, 0.50):
        pen.blob([(x, 0.10), (x + 0.07, 0.20), (x + 0.04, 0.34), (x, 0.40), (x - 0.04, 0.34), (x - 0.06, 0.20)], HAIR)
    pen.line([(0.20, 0.42), (0.08, 0.58)], SKIN, 0.06, outlined=True)
    pen.line([(0.38, 0.42), (0.54, 0.47)], SKIN, 0.06, outlined=True)
    pen.polygon([(0.22, 0.34), (0.36, 0.34), (0.40, 0.52), (0.57, 0.82), (0.01, 0.82), (0.18, 0.52)], pen.color)
    pen.line([(0.19, 0.53), (0.39, 0.53)], pen.detail, 0.03)
    pen.ellipse(0.28, 0.19, 0.15, 0.155, SKIN)
    pen.blob(
        [(0.28, 0.0), (0.42, 0.06), (0.46, 0.19), (0.38, 0.12), (0.28, 0.10), (0.18, 0.12), (0.10, 0.19), (0.14, 0.06)],
        HAIR,
    )
    _face(pen, 0.28, 0.22)


def tree(pen: Pen) -> None:
    pen.polygon([(0.33, 0.60), (0.47, 0.60), (0.49, 0.92), (0.56, 1.0), (0.24, 1.0), (0.31, 0.92)], WOOD)
    pen.blob(
        [
            (0.40, 0.0),
            (0.58, 0.06),
            (0.66, 0.20),
            (0.78, 0.34),
            (0.76, 0.54),
            (0.60, 0.66),
            (0.40, 0.63),
            (0.20, 0.66),
            (0.04, 0.54),
            (0.02, 0.34),
            (0.14, 0.20),
            (0.22, 0.06),
        ],
        pen.color,
    )
    for x, y in ((0.34, 0.20), (0.56, 0.34), (0.24, 0.44), (0.46, 0.50)):
        pen.line([(x - 0.06, y), (x - 0.02, y + 0.04), (x + 0.03, y + 0.04), (x + 0.06, y)], pen.detail, 0.02)
