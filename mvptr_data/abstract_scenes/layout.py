"""Where everything stands: groups are built first, so that relations are meant, then placed where there is room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mvptr_data.abstract_scenes.backdrops import Backdrop
from mvptr_data.abstract_scenes.groups import BUILDERS, Group, Maker
from mvptr_data.abstract_scenes.randomness import Stream, generator
from mvptr_data.abstract_scenes.records import CANVAS, Relation, Thing
from mvptr_data.abstract_scenes.relations import HOLDS, INVERSES, Placement
from mvptr_data.abstract_scenes.sprites import mask

#: A scene holds at least and at most this many things.
LEAST_THINGS, MOST_THINGS = 3, 8

#: The least visible share of a thing, by size: small things lose their looks sooner.
LEAST_VISIBLE: dict[str, float] = {"small": 0.72, "medium": 0.56, "large": 0.56}

_MARGIN = 2  # pixels between things and the edge of the picture
_TRIES_TO_PLACE = 12  # positions tried before a group is given up
_GROUPS_TRIED = 14  # groups tried before a layout is taken as it is
_TOUCH = 0.10  # share of the smaller box that things of different groups may share


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Things from back to front and every relation that was meant and holds, inverses included."""

    things: tuple[Thing, ...]
    relations: tuple[Relation, ...]


def _owners(placements: Sequence[Placement]) -> npt.NDArray[np.int8]:
    """int8 [CANVAS, CANVAS]: which placement (back to front) is seen at each pixel, -1 for none."""
    owner = np.full((CANVAS, CANVAS), -1, dtype=np.int8)
    for number, p in enumerate(placements):
        owner[p.top : p.bottom, p.left : p.right][mask(p.kind, p.extent, p.flip)] = number
    return owner


def _things(placements: Sequence[Placement]) -> list[Thing] | None:
    """The placements as things, or None if one of them is hidden too far."""
    owner = _owners(placements)
    things = []
    for number, p in enumerate(placements):
        seen = owner[p.top : p.bottom, p.left : p.right] == number
        visible = float(seen.sum() / mask(p.kind, p.extent, p.flip).sum())
        if visible < LEAST_VISIBLE[p.size]:
            return None
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        box = (p.left + columns[0], p.top + rows[0], p.left + columns[-1] + 1, p.top + rows[-1] + 1)
        things.append(
            Thing(
                kind=p.kind,
                color=p.color,
                size=p.size,
                box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                visible=visible,
                left=p.left,
                top=p.top,
                extent=p.extent,
                flip=p.flip,
            )
        )
    return things


def _moved(group: Group, dx: int, dy: int) -> Group:
    return replace(group, placements=tuple(replace(p, left=p.left + dx, top=p.top + dy) for p in group.placements))


def _shared_box(a: Placement, b: Placement) -> float:
    """The area two boxes share, as a share of the smaller one."""
    wide = min(a.right, b.right) - max(a.left, b.left)
    high = min(a.bottom, b.bottom) - max(a.top, b.top)
    return max(wide, 0) * max(high, 0) / min(a.width * a.height, b.width * b.height)


def _place(group: Group, taken: Sequence[Placement], drop: Backdrop, random: np.random.Generator) -> Group | None:
    """The group moved to where it fits, or None if no such place was found."""
    left = min(p.left for p in group.placements)
    right = max(p.right for p in group.placements)
    top = min(p.top for p in group.placements)
    bottom = max(p.bottom for p in group.placements)
    lowest = CANVAS - _MARGIN - bottom
    bands = {
        "ground": (drop.shore + 8, lowest),
        "water": (drop.horizon + 16, drop.shore - 4),
        "air": (_MARGIN - top, drop.horizon),
    }
    first, last = bands[group.medium]
    first, last = max(first, _MARGIN - top), min(last, lowest)
    if first > last or right - left > CANVAS - 2 * _MARGIN:
        return None
    for _ in range(_TRIES_TO_PLACE):
        dx = int(random.integers(_MARGIN - left, CANVAS - _MARGIN - right + 1))
        dy = int(random.integers(first, last + 1))
        moved = _moved(group, dx, dy)
        if all(_shared_box(p, other) <= _TOUCH for p in moved.placements for other in taken):
            return moved
    return None


def _holds(group: Group) -> bool:
    """Every meant relation is geometrically true."""
    p = group.placements
    return all(HOLDS[r.predicate](p[r.subject], p[r.object]) for r in group.relations)


def _ground_lines(group: Group) -> list[int]:
    """Where each thing of the group stands, which decides the order of drawing: lower ground is nearer. What flies on its
    own is behind everything."""
    if group.medium == "air":
        return [-1] * len(group.placements)
    return [(group.placements[0] if group.carried else p).bottom for p in group.placements]


def _assemble(groups: Sequence[Group]) -> tuple[list[Placement], list[Relation]]:
    """All things from back to front, and the groups' relations in their new numbers."""
    placements = [p for group in groups for p in group.placements]
    lines = [line for group in groups for line in _ground_lines(group)]
    order = sorted(range(len(placements)), key=lines.__getitem__)
    number = {old: new for new, old in enumerate(order)}
    relations: list[Relation] = []
    offset = 0
    for group in groups:
        for r in group.relations:
            subject, object_ = number[r.subject + offset], number[r.object + offset]
            relations.append(Relation(subject=subject, predicate=r.predicate, object=object_))
            if r.predicate in INVERSES:
                relations.append(Relation(subject=object_, predicate=INVERSES[r.predicate], object=subject))
        offset += len(group.placements)
    return [placements[old] for old in order], relations


def _collect(drop: Backdrop, random: np.random.Generator) -> list[Group]:
    make = Maker(random, drop.background)
    wanted = int(random.integers(LEAST_THINGS, MOST_THINGS + 1))
    shares = np.asarray([share for _, share in BUILDERS])
    groups: list[Group] = []
    taken: list[Placement] = []
    for _ in range(_GROUPS_TRIED):
        build = BUILDERS[random.choice(len(BUILDERS), p=shares / shares.sum())][0]
        group = build(make)
        if len(taken) + len(group.placements) > wanted or not _holds(group):
            continue
        placed = _place(group, taken, drop, random)
        if placed is not None:
            groups.append(placed)
            taken.extend(placed.placements)
        if len(taken) == wanted:
            break
    return groups


def lay_out(seed: int, index: int, drop: Backdrop) -> Layout:
    """The things of a scene and their relations. Pure; draws until a layout keeps every rule."""
    random = generator(seed, index, Stream.LAYOUT)
    while True:
        placements, relations = _assemble(_collect(drop, random))
        if len(placements) < LEAST_THINGS or not relations:
            continue
        things = _things(placements)
        if things is not None:
            return Layout(things=tuple(things), relations=tuple(relations))
