"""When a relation holds, as geometry: one pure function a relation, over where two things were drawn.

The layout builds a relation first and then checks it here, so the truth never rests on the builder alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mvptr_data.abstract_scenes.records import Thing
from mvptr_data.abstract_scenes.sprites import mask
from mvptr_data.abstract_scenes.traits import TRAITS

#: Every relation in the truth, by the predicate a caption's phrase gives it.
RELATIONS: tuple[str, ...] = (
    "above",
    "behind",
    "below",
    "hold",
    "in front of",
    "next to",
    "on",
    "on top of",
    "under",
)

#: What is said of the second thing when a relation is said of the first.
INVERSES: dict[str, str] = {"above": "below", "in front of": "behind", "next to": "next to"}

#: A thing in front hides at least this share of the one behind.
LEAST_OVERLAP = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A thing as drawn, whole: what it is, its upper left corner in pixels, its longer side, and whether it is mirrored."""

    kind: str
    color: str
    size: str
    left: int
    top: int
    extent: int
    flip: bool = False

    @classmethod
    def of(cls, thing: Thing) -> Placement:
        """How a scene's thing was drawn, before anything covered it."""
        return cls(
            kind=thing.kind,
            color=thing.color,
            size=thing.size,
            left=thing.left,
            top=thing.top,
            extent=thing.extent,
            flip=thing.flip,
        )

    @property
    def width(self) -> int:
        return int(mask(self.kind, self.extent, self.flip).shape[1])

    @property
    def height(self) -> int:
        return int(mask(self.kind, self.extent, self.flip).shape[0])

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def center(self) -> float:
        return self.left + self.width / 2

    def x_at(self, share: float) -> float:
        """The column at `share` of the width of the unmirrored figure."""
        return self.left + self.width * (1 - share if self.flip else share)

    def y_at(self, share: float) -> float:
        """The row at `share` of the height."""
        return self.top + self.height * share

    def columns(self, span: tuple[float, float]) -> tuple[float, float]:
        """The columns between two shares of the width, ascending."""
        a, b = self.x_at(span[0]), self.x_at(span[1])
        return min(a, b), max(a, b)


def overlap(back: Placement, front: Placement) -> int:
    """Pixels that both things cover."""
    left, right = max(back.left, front.left), min(back.right, front.right)
    top, bottom = max(back.top, front.top), min(back.bottom, front.bottom)
    if left >= right or top >= bottom:
        return 0
    cut = [
        mask(p.kind, p.extent, p.flip)[top - p.top : bottom - p.top, left - p.left : right - p.left]
        for p in (back, front)
    ]
    return int((cut[0] & cut[1]).sum())


def is_on(item: Placement, support: Placement) -> bool:
    """The item's foot rests on the support's surface, its middle over it."""
    surface = TRAITS[support.kind].surface
    if surface is None:
        return False
    low, high = support.columns(surface[0])
    first, last = (support.y_at(share) for share in surface[1])
    return low <= item.center <= high and first - 1 <= item.bottom <= last + 1


def is_on_top_of(item: Placement, support: Placement) -> bool:
    """On it, and nothing of the support rises over the surface."""
    return TRAITS[support.kind].top_surface and is_on(item, support)


def is_under(item: Placement, roof: Placement) -> bool:
    """The item stands below the roof's ceiling, between its sides, on the same ground."""
    shelter = TRAITS[roof.kind].shelter
    if shelter is None:
        return False
    low, high = roof.columns(shelter[0])
    ceiling = roof.y_at(shelter[1])
    return (
        low - 1 <= item.left and item.right <= high + 1 and ceiling - 1 <= item.top and item.bottom <= roof.bottom + 8
    )


def is_above(item: Placement, host: Placement) -> bool:
    """The item is in the air over the host: apart from it, not far, its middle over the host's width."""
    return TRAITS[item.kind].flies and host.left <= item.center <= host.right and 3 <= host.top - item.bottom <= 48


def is_next_to(item: Placement, other: Placement) -> bool:
    """Side by side on the same ground, near, without touching."""
    first, second = sorted((item, other), key=lambda p: p.left)
    return 1 <= second.left - first.right <= 16 and abs(item.bottom - other.bottom) <= 8


def is_in_front_of(item: Placement, other: Placement) -> bool:
    """Nearer to the viewer (lower feet) and hiding part of the other."""
    covered = int(mask(other.kind, other.extent, other.flip).sum())
    return item.bottom > other.bottom and overlap(other, item) >= LEAST_OVERLAP * covered


def is_holding(person: Placement, item: Placement) -> bool:
    """The person's hand is at the item's grip."""
    hand, grip = TRAITS[person.kind].hand, TRAITS[item.kind].grip
    if hand is None or grip is None:
        return False
    dx = person.x_at(hand[0]) - item.x_at(grip[0])
    dy = person.y_at(hand[1]) - item.y_at(grip[1])
    return abs(dx) <= 3 and abs(dy) <= 3


#: predicate -> does (subject, object) stand in it?
HOLDS: dict[str, Callable[[Placement, Placement], bool]] = {
    "above": is_above,
    "behind": lambda subject, object_: is_in_front_of(object_, subject),
    "below": lambda subject, object_: is_above(object_, subject),
    "hold": is_holding,
    "in front of": is_in_front_of,
    "next to": is_next_to,
    "on": is_on,
    "on top of": is_on_top_of,
    "under": is_under,
}
