"""From a scene to its picture: the backdrop, then every thing from back to front, each with a shadow where it stands."""

from __future__ import annotations

from functools import lru_cache

from PIL import Image, ImageDraw

from mvptr_data.abstract_scenes.backdrops import draw_backdrop
from mvptr_data.abstract_scenes.records import Scene
from mvptr_data.abstract_scenes.sprites import sprite
from mvptr_data.abstract_scenes.traits import TRAITS

_SHADOW = 46  # opacity of a shadow, of 255


@lru_cache(maxsize=256)
def _shadow(width: int) -> Image.Image:
    """L: the opacity of a flat shadow under something `width` pixels wide."""
    height = max(4, width // 8)
    image = Image.new("L", (width * 4, height * 4))
    ImageDraw.Draw(image).ellipse((0, 0, width * 4 - 1, height * 4 - 1), fill=_SHADOW)
    return image.reduce(4)


def draw_scene(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, `scene.width` x `scene.height`. Pure, and independent of the captions."""
    picture = draw_backdrop(scene.seed, scene.index)
    held = {relation.object for relation in scene.relations if relation.predicate == "hold"}
    for number, thing in enumerate(scene.things):
        figure = sprite(thing.kind, thing.color, thing.extent, thing.flip)
        if TRAITS[thing.kind].grounded and number not in held:
            shadow = _shadow(figure.width)
            foot = thing.top + figure.height
            picture.paste((30, 34, 44), (thing.left, foot - (shadow.height + 1) // 2), shadow)
        picture.paste(figure, (thing.left, thing.top), figure)
    return picture
