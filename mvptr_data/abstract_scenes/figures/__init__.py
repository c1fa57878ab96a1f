"""How each kind of thing looks: one function a kind.

Only the main surface takes the thing's color; what surrounds it (wood, skin, glass, rubber) is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mvptr_data.abstract_scenes.figures import living, made
from mvptr_data.abstract_scenes.pen import Pen


@dataclass(frozen=True, slots=True)
class Figure:
    """A kind's looks: the unit box it fills (longer side 1) and the function that draws it."""

    width: float
    height: float
    draw: Callable[[Pen], None]


#: kind -> its looks.
FIGURES: dict[str, Figure] = {
    "ball": Figure(1.0, 1.0, made.ball),
    "balloon": Figure(0.58, 1.0, made.balloon),
    "bird": Figure(1.0, 0.90, living.bird),
    "boat": Figure(1.0, 0.95, made.boat),
    "box": Figure(1.0, 0.90, made.box),
    "boy": Figure(0.58, 1.0, living.boy),
    "car": Figure(1.0, 0.55, made.car),
    "cat": Figure(0.72, 1.0, living.cat),
    "chair": Figure(0.58, 1.0, made.chair),
    "dog": Figure(1.0, 0.82, living.dog),
    "flower": Figure(0.62, 1.0, living.flower),
    "girl": Figure(0.58, 1.0, living.girl),
    "house": Figure(1.0, 0.94, made.house),
    "kite": Figure(0.70, 1.0, made.kite),
    "lamp": Figure(0.60, 1.0, made.lamp),
    "table": Figure(1.0, 0.68, made.table),
    "tree": Figure(0.78, 1.0, living.tree),
    "umbrella": Figure(1.0, 0.94, made.umbrella),
}
