"""What can be done with a thing of each kind, as shares of its drawn width and height (x right, y down)."""

from __future__ import annotations

from dataclasses import dataclass

Span = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """A kind's place in the world.

    `surface` is where things can stand on it: a span of x and a span of y. `top_surface` says whether nothing of it
    rises over that surface, so that "on top of" is as true as "on". `shelter` is where small things can stand under it:
    a span of x and the y of its ceiling. `hand` is where a person holds things, `grip` where a thing is held. `flies`
    and `floats` are the places it takes when nothing holds it: in the air, on water.
    """

    surface: tuple[Span, Span] | None = None
    top_surface: bool = True
    shelter: tuple[Span, float] | None = None
    hand: tuple[float, float] | None = None
    grip: tuple[float, float] | None = None
    flies: bool = False
    grounded: bool = True
    floats: bool = False
    settles: bool = False


#: kind -> its traits. `settles`: things of the kind are found on and under furniture.
TRAITS: dict[str, Traits] = {
    "ball": Traits(grip=(0.06, 0.5), settles=True),
    "balloon": Traits(grip=(0.5, 1.0), flies=True, grounded=False),
    "bird": Traits(flies=True, settles=True),
    "boat": Traits(grounded=False, floats=True),
    "box": Traits(surface=((0.12, 0.88), (0.06, 0.22)), settles=True),
    "boy": Traits(hand=(0.97, 0.47)),
    "car": Traits(surface=((0.30, 0.64), (0.02, 0.10))),
    "cat": Traits(settles=True),
    "chair": Traits(surface=((0.15, 0.85), (0.54, 0.62)), top_surface=False),
    "dog": Traits(settles=True),
    "flower": Traits(grip=(0.5, 0.86), settles=True),
    "girl": Traits(hand=(0.94, 0.47)),
    "house": Traits(surface=((0.22, 0.66), (0.07, 0.12))),
    "kite": Traits(grip=(0.47, 1.0), flies=True, grounded=False),
    "lamp": Traits(settles=True),
    "table": Traits(surface=((0.10, 0.90), (0.06, 0.20)), shelter=((0.12, 0.88), 0.36)),
    "tree": Traits(shelter=((0.0, 1.0), 0.67)),
    "umbrella": Traits(grip=(0.42, 0.96), shelter=((0.05, 0.95), 0.50)),
}

#: background -> kinds that do not belong there.
MISPLACED: dict[str, frozenset[str]] = {
    "beach": frozenset({"lamp"}),
    "lake": frozenset({"lamp"}),
    "meadow": frozenset({"boat", "lamp"}),
    "room": frozenset({"boat", "car", "house", "kite", "tree"}),
    "snow": frozenset({"boat"}),
    "street": frozenset({"boat"}),
}
