"""Things people make. Unit coordinates: x to the right, y down, the longer side 1."""

from __future__ import annotations

import math

from mvptr_data.abstract_scenes.figures.materials import CLOTH, DARK_WOOD, GLASS, METAL, RUBBER, SHINE, WOOD
from mvptr_data.abstract_scenes.pen import Pen


def ball(pen: Pen) -> None:
    pen.ellipse(0.5, 0.5, 0.5, 0.5, pen.color)
    pen.line([(0.06, 0.42), (0.28, 0.54), (0.5, 0.57), (0.72, 0.54), (0.94, 0.42)], pen.detail, 0.03)
    pen.line([(0.62, 0.02), (0.70, 0.26), (0.69, 0.54), (0.62, 0.78), (0.50, 0.99)], pen.detail, 0.03)
    pen.ellipse(0.30, 0.26, 0.10, 0.07, SHINE, outlined=False)


def balloon(pen: Pen) -> None:
    pen.line([(0.29, 0.74), (0.33, 0.82), (0.26, 0.90), (0.29, 1.0)], RUBBER, 0.03)
    pen.polygon([(0.29, 0.67), (0.36, 0.76), (0.22, 0.76)], pen.dark)
    pen.blob(
        [(0.29, 0.0), (0.53, 0.11), (0.58, 0.32), (0.45, 0.58), (0.29, 0.70), (0.13, 0.58), (0.0, 0.32), (0.05, 0.11)],
        pen.color,
    )
    pen.ellipse(0.18, 0.19, 0.05, 0.09, SHINE, outlined=False)


def boat(pen: Pen) -> None:
    pen.line([(0.46, 0.02), (0.46, 0.72)], WOOD, 0.04, outlined=True)
    pen.polygon([(0.52, 0.06), (0.92, 0.58), (0.52, 0.58)], CLOTH)
    pen.polygon([(0.40, 0.14), (0.40, 0.58), (0.12, 0.58)], CLOTH)
    pen.polygon([(0.0, 0.66), (1.0, 0.66), (0.92, 0.84), (0.82, 0.95), (0.18, 0.95), (0.07, 0.82)], pen.color)
    pen.line([(0.05, 0.77), (0.94, 0.77)], pen.detail, 0.03)


def box(pen: Pen) -> None:
    pen.polygon([(0.0, 0.22), (0.24, 0.0), (1.0, 0.0), (0.76, 0.22)], pen.light)
    pen.polygon([(0.76, 0.22), (1.0, 0.0), (1.0, 0.66), (0.76, 0.90)], pen.dark)
    pen.rectangle(0.0, 0.22, 0.76, 0.90, pen.color)
    pen.polygon([(0.31, 0.22), (0.55, 0.0), (0.69, 0.0), (0.45, 0.22), (0.45, 0.42), (0.31, 0.42)], CLOTH)


def car(pen: Pen) -> None:
    pen.polygon([(0.20, 0.24), (0.30, 0.03), (0.62, 0.0), (0.78, 0.24)], pen.color)
    pen.polygon([(0.27, 0.22), (0.34, 0.08), (0.46, 0.07), (0.46, 0.22)], GLASS)
    pen.polygon([(0.51, 0.22), (0.51, 0.07), (0.60, 0.06), (0.69, 0.22)], GLASS)
    pen.blob(
        [
            (0.0, 0.34),
            (0.03, 0.25),
            (0.30, 0.22),
            (0.75, 0.22),
            (0.95, 0.27),
            (1.0, 0.38),
            (0.97, 0.45),
            (0.5, 0.46),
            (0.03, 0.45),
        ],
        pen.color,
    )
    for x in (0.23, 0.77):
        pen.ellipse(x, 0.44, 0.105, 0.105, RUBBER)
        pen.ellipse(x, 0.44, 0.045, 0.045, METAL, outlined=False)
    pen.ellipse(0.955, 0.32, 0.025, 0.03, (255, 240, 170), outlined=False)


def chair(pen: Pen) -> None:
    for x, y in ((0.14, 0.92), (0.52, 0.92)):
        pen.line([(x, 0.58), (x, y)], pen.dark, 0.05, outlined=True)
    pen.rectangle(0.12, 0.02, 0.54, 0.13, pen.color)
    pen.rectangle(0.12, 0.22, 0.54, 0.31, pen.color)
    for x in (0.12, 0.48):
        pen.rectangle(x, 0.0, x + 0.06, 0.54, pen.color)
    for x in (0.03, 0.55):
        pen.line([(x, 0.66), (x, 0.99)], pen.color, 0.05, outlined=True)
    pen.polygon([(0.12, 0.50), (0.54, 0.50), (0.58, 0.64), (0.0, 0.64)], pen.light)
    pen.rectangle(0.0, 0.64, 0.58, 0.71, pen.color)


def house(pen: Pen) -> None:
    pen.rectangle(0.70, 0.04, 0.80, 0.30, (150, 92, 80))
    pen.rectangle(0.09, 0.38, 0.91, 0.94, pen.color)
    pen.polygon([(0.0, 0.40), (0.20, 0.08), (0.80, 0.08), (1.0, 0.40)], (122, 100, 96))
    pen.rectangle(0.42, 0.58, 0.60, 0.94, WOOD)
    for x in (0.17, 0.68):
        pen.rectangle(x, 0.52, x + 0.17, 0.70, GLASS)
        pen.line([(x + 0.085, 0.52), (x + 0.085, 0.70)], (250, 250, 250), 0.02)
    pen.ellipse(0.56, 0.77, 0.014, 0.014, (246, 216, 110), outlined=False)


def kite(pen: Pen) -> None:
    pen.line([(0.35, 0.66), (0.27, 0.75), (0.41, 0.86), (0.33, 0.99)], RUBBER, 0.025)
    for x, y in ((0.28, 0.76), (0.39, 0.88)):
        pen.polygon([(x - 0.09, y - 0.05), (x, y), (x - 0.09, y + 0.05)], pen.dark)
        pen.polygon([(x + 0.09, y - 0.05), (x, y), (x + 0.09, y + 0.05)], pen.dark)
    pen.polygon([(0.35, 0.0), (0.70, 0.28), (0.35, 0.68), (0.0, 0.28)], pen.color)
    pen.polygon([(0.35, 0.0), (0.70, 0.28), (0.35, 0.28)], pen.dark)
    pen.polygon([(0.35, 0.28), (0.35, 0.68), (0.0, 0.28)], pen.dark)


def lamp(pen: Pen) -> None:
    pen.rectangle(0.27, 0.44, 0.33, 0.90, METAL)
    pen.ellipse(0.30, 0.93, 0.19, 0.065, METAL)
    pen.line([(0.44, 0.46), (0.44, 0.60)], RUBBER, 0.02)
    pen.ellipse(0.30, 0.47, 0.09, 0.07, (255, 240, 170))
    pen.polygon([(0.17, 0.0), (0.43, 0.0), (0.60, 0.45), (0.0, 0.45)], pen.color)
    pen.polygon([(0.02, 0.39), (0.58, 0.39), (0.60, 0.45), (0.0, 0.45)], pen.dark)


def table(pen: Pen) -> None:
    for x in (0.16, 0.84):
        pen.line([(x, 0.16), (x, 0.58)], pen.dark, 0.05, outlined=True)
    for x in (0.05, 0.95):
        pen.line([(x, 0.20), (x, 0.66)], pen.color, 0.055, outlined=True)
    pen.polygon([(0.12, 0.0), (0.88, 0.0), (1.0, 0.15), (0.0, 0.15)], pen.light)
    pen.rectangle(0.0, 0.15, 1.0, 0.23, pen.color)


def umbrella(pen: Pen) -> None:
    pen.line([(0.5, 0.36), (0.5, 0.86), (0.46, 0.92), (0.39, 0.92), (0.36, 0.86)], DARK_WOOD, 0.045, outlined=True)
    pen.line([(0.5, 0.0), (0.5, 0.10)], DARK_WOOD, 0.04)
    rim = [
        (0.0, 0.44),
        (0.12, 0.38),
        (0.25, 0.44),
        (0.375, 0.38),
        (0.5, 0.44),
        (0.625, 0.38),
        (0.75, 0.44),
        (0.88, 0.38),
        (1.0, 0.44),
    ]
    dome = [(0.5 + 0.5 * math.cos(a), 0.44 - 0.40 * math.sin(a)) for a in (math.pi * i / 16 for i in range(1, 16))]
    pen.polygon([*rim, *dome], pen.color)
    pen.polygon([(0.25, 0.44), (0.375, 0.38), (0.5, 0.44), (0.5, 0.04), (0.36, 0.14)], pen.dark)
    pen.polygon(
        [(0.75, 0.44), (0.88, 0.38), (1.0, 0.44), (0.92, 0.25), (0.80, 0.12), (0.5, 0.04), (0.66, 0.14)], pen.dark
    )
