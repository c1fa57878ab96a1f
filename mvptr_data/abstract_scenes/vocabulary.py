"""What the drawn world is made of: kinds of things, colors, sizes.

The tuples fix the order in which a detector numbers its classes and attributes; appending is safe, reordering is not.
"""

from __future__ import annotations

#: Every kind of thing a scene can hold. One noun each, and each its own lemma, so that a kind is a detector's tag and a
#: phrase's object in one word.
KINDS: tuple[str, ...] = (
    "ball",
    "balloon",
    "bird",
    "boat",
    "box",
    "boy",
    "car",
    "cat",
    "chair",
    "dog",
    "flower",
    "girl",
    "house",
    "kite",
    "lamp",
    "table",
    "tree",
    "umbrella",
)

#: Eight colors, far apart in hue or lightness, and the RGB value of each one's main surface.
COLOR_VALUES: dict[str, tuple[int, int, int]] = {
    "black": (46, 46, 52),
    "blue": (45, 92, 214),
    "green": (38, 150, 66),
    "pink": (250, 140, 190),
    "purple": (128, 52, 172),
    "red": (218, 38, 42),
    "white": (246, 246, 244),
    "yellow": (250, 208, 36),
}
COLORS: tuple[str, ...] = tuple(COLOR_VALUES)

#: The longer side, in pixels, a thing of each size is drawn with. The gaps between the classes are wide, so that a size
#: can be read from a box alone wherever the thing is not occluded.
SIZE_EXTENTS: dict[str, tuple[int, ...]] = {
    "small": (32, 35, 38),
    "medium": (56, 61, 66),
    "large": (94, 102, 110),
}
SIZES: tuple[str, ...] = tuple(SIZE_EXTENTS)

#: Where a scene takes place. Backgrounds are not things: no box, no tag.
BACKGROUNDS: tuple[str, ...] = ("beach", "lake", "meadow", "room", "snow", "street")
