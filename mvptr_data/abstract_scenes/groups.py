"""Small arrangements of things that make relations true: a group is built around its own ground line, then placed whole.

Coordinates are local: x from the group's left, y = 0 at the ground it stands on, upwards negative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mvptr_data.abstract_scenes.records import Relation
from mvptr_data.abstract_scenes.relations import Placement
from mvptr_data.abstract_scenes.traits import MISPLACED, TRAITS, Traits
from mvptr_data.abstract_scenes.vocabulary import COLORS, KINDS, SIZE_EXTENTS, SIZES

#: How often each size is asked for where all would fit; large things are rarer in the end, because they find no room.
_SIZE_SHARES = (0.30, 0.35, 0.35)

#: How often each kind is asked for, where 1 is not said: more for kinds that few groups or backgrounds have room for.
_KIND_SHARES = {
    "ball": 0.9,
    "balloon": 1.2,
    "bird": 0.7,
    "boat": 6.0,
    "boy": 0.85,
    "car": 1.6,
    "cat": 1.2,
    "chair": 0.9,
    "flower": 0.75,
    "girl": 0.8,
    "house": 1.6,
    "kite": 1.7,
    "lamp": 2.2,
    "table": 0.8,
    "tree": 1.7,
    "umbrella": 0.9,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Things from back to front, the relations meant between them (indices into `placements`), and where the group goes:
    on the ground, on water or in the air. In a `carried` group only the first thing stands on the ground; the others are
    as near to the viewer as it is."""

    placements: tuple[Placement, ...]
    relations: tuple[Relation, ...] = ()
    medium: str = "ground"
    carried: bool = False


class Maker:
    """Draws what a group is made of from a random stream, among the kinds that belong in front of `background`."""

    def __init__(self, random: np.random.Generator, background: str) -> None:
        self.random = random
        self.kinds = [kind for kind in KINDS if kind not in MISPLACED[background]]

    def choose(self, options: list[str]) -> str:
        return options[self.random.integers(len(options))]

    def kind(self, fits: Callable[[Traits], bool]) -> str:
        options = [kind for kind in self.kinds if fits(TRAITS[kind])]
        shares = np.asarray([_KIND_SHARES.get(kind, 1.0) for kind in options])
        return options[self.random.choice(len(options), p=shares / shares.sum())]

    def color(self) -> str:
        return self.choose(list(COLORS))

    def size(self) -> str:
        return SIZES[self.random.choice(len(SIZES), p=_SIZE_SHARES)]

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def between(self, low: int, high: int) -> int:
        """An integer of [low, high]; `low` if the range is empty."""
        return int(self.random.integers(low, max(low, high) + 1))

    def thing(self, kind: str, size: str, color: str | None = None) -> Placement:
        """A thing of that kind and size standing on the ground at x = 0."""
        extents = SIZE_EXTENTS[size]
        extent = extents[self.random.integers(len(extents))]
        color = color or self.color()
        flip = self.chance(0.5)
        at_origin = Placement(kind=kind, color=color, size=size, left=0, top=0, extent=extent, flip=flip)
        return replace(at_origin, top=-at_origin.height)


def single(make: Maker) -> Group:
    """One thing, on its own."""
    kind = make.kind(lambda traits: True)
    traits = TRAITS[kind]
    medium = (
        "water" if traits.floats else "air" if traits.flies and not (traits.grounded and make.chance(0.4)) else "ground"
    )
    return Group(placements=(make.thing(kind, make.size()),), medium=medium)


def row(make: Maker) -> Group:
    """Two or three things of one kind side by side, often of one color."""
    kind = make.kind(lambda traits: traits.grounded or traits.floats)
    size, shared = make.size(), make.color() if make.chance(0.5) else None
    count = 3 if size != "large" and make.chance(0.4) else 2
    placements, left = [], 0
    for _ in range(count):
        placed = replace(make.thing(kind, size, shared), left=left)
        placements.append(placed)
        left = placed.right + make.between(3, 12)
    relations = tuple(Relation(subject=i, predicate="next to", object=i + 1) for i in range(count - 1))
    return Group(placements=tuple(placements), relations=relations, medium="water" if TRAITS[kind].floats else "ground")


def pair(make: Maker) -> Group:
    """Two things of different kinds side by side."""
    first = make.thing(make.kind(lambda traits: traits.grounded), make.size())
    second = make.thing(make.kind(lambda traits: traits.grounded), make.size())
    second = replace(second, left=first.right + make.between(3, 14), top=second.top + make.between(-4, 4))
    return Group(placements=(first, second), relations=(Relation(subject=0, predicate="next to", object=1),))


def stack(make: Maker) -> Group:
    """One or two small things, or a medium one, on a larger thing."""
    support = make.thing(
        make.kind(lambda traits: traits.surface is not None), make.choose(["medium", "large", "large"])
    )
    surface = TRAITS[support.kind].surface
    assert surface is not None
    item_size = "medium" if support.size == "large" and make.chance(0.45) else "small"
    wide = support.kind == "table" and support.size == "large" and item_size == "small"
    kind = make.kind(lambda traits: traits.settles)
    placements = [support]
    low, high = support.columns(surface[0])
    for i in range(2 if wide and make.chance(0.5) else 1):
        item = make.thing(kind, item_size)
        x = make.between(round(low), round(high))
        if wide:  # each its own half
            middle = round((low + high) / 2)
            x = make.between(round(low), middle - 20) if i == 0 else make.between(middle + 20, round(high))
        y = make.between(round(support.y_at(surface[1][0])), round(support.y_at(surface[1][1])))
        placements.append(replace(item, left=round(x - item.width / 2), top=y - item.height))
    predicates = ("on", "on top of") if TRAITS[support.kind].top_surface else ("on",)
    relations = tuple(
        Relation(subject=i, predicate=predicate, object=0)
        for i in range(1, len(placements))
        for predicate in predicates
    )
    return Group(placements=tuple(placements), relations=relations, carried=True)


def shelter(make: Maker) -> Group:
    """One or two small things under a large one."""
    roof = make.thing(make.kind(lambda traits: traits.shelter is not None), "large")
    room = TRAITS[roof.kind].shelter
    assert room is not None
    low, high = roof.columns(room[0])
    kind = make.kind(lambda traits: traits.settles or traits.hand is not None)
    items: list[Placement] = []
    left = low
    for _ in range(2 if make.chance(0.4) else 1):
        item = make.thing(kind, "small")
        if left + item.width > high:
            break
        lead = high - left - item.width
        placed = replace(
            item,
            left=make.between(round(left), round(left + (lead if items else lead / 2))),
            top=item.top + make.between(0, 6),
        )
        items.append(placed)
        left = placed.right + 4
    relations = tuple(Relation(subject=i, predicate="under", object=0) for i in range(1, len(items) + 1))
    return Group(placements=(roof, *items), relations=relations)


def flight(make: Maker) -> Group:
    """One or two flying things above something."""
    host = make.thing(make.kind(lambda traits: traits.grounded or traits.floats), make.size())
    kind = make.kind(lambda traits: traits.flies)
    flyers: list[Placement] = []
    for _ in range(2 if host.size == "large" and make.chance(0.35) else 1):
        flyer = make.thing(kind, make.choose(["small", "small", "medium", "large"]) if not flyers else flyers[0].size)
        x = make.between(0, host.width)
        left = round(x - flyer.width / 2)
        if flyers:
            left = flyers[0].right + make.between(2, 10)
        flyers.append(replace(flyer, left=left, top=host.top - flyer.height - make.between(5, 30)))
    relations = tuple(Relation(subject=i, predicate="above", object=0) for i in range(1, len(flyers) + 1))
    medium = "water" if TRAITS[host.kind].floats else "ground"
    return Group(placements=(host, *flyers), relations=relations, medium=medium, carried=True)


def screen(make: Maker) -> Group:
    """One thing partly hidden behind another that is nearer."""
    sizes = [("small", "medium"), ("medium", "medium"), ("medium", "large"), ("large", "large")]
    front_size, back_size = sizes[make.random.integers(len(sizes))]
    back = make.thing(make.kind(lambda traits: traits.grounded), back_size)
    front = make.thing(make.kind(lambda traits: traits.grounded), front_size)
    shared = make.random.uniform(0.45, 0.95) * min(front.width, back.width)
    left = back.right - shared if make.chance(0.5) else shared - front.width
    return Group(
        placements=(back, replace(front, left=round(left), top=front.top + make.between(4, 14))),
        relations=(Relation(subject=1, predicate="in front of", object=0),),
    )


def grasp(make: Maker) -> Group:
    """A person who holds something."""
    person = make.thing(make.kind(lambda traits: traits.hand is not None), make.choose(["medium", "large", "large"]))
    sizes = ["small", "medium"] if person.size == "large" else ["small"]
    item = make.thing(make.kind(lambda traits: traits.grip is not None), make.choose(sizes))
    item = replace(item, flip=person.flip)
    hand, grip = TRAITS[person.kind].hand, TRAITS[item.kind].grip
    assert hand is not None and grip is not None
    dx = person.x_at(hand[0]) - item.x_at(grip[0])
    dy = person.y_at(hand[1]) - item.y_at(grip[1])
    item = replace(item, left=round(item.left + dx), top=round(item.top + dy))
    return Group(placements=(person, item), relations=(Relation(subject=0, predicate="hold", object=1),), carried=True)


#: Each way to build a group and how often it is tried, in parts of the whole.
BUILDERS: tuple[tuple[Callable[[Maker], Group], float], ...] = (
    (single, 0.15),
    (row, 0.11),
    (pair, 0.12),
    (stack, 0.13),
    (shelter, 0.09),
    (flight, 0.11),
    (screen, 0.19),
    (grasp, 0.10),
)
