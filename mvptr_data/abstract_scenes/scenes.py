"""From (seed, index) to a scene."""

from __future__ import annotations

from dataclasses import replace

from mvptr_data.abstract_scenes.backdrops import plan_backdrop
from mvptr_data.abstract_scenes.captions import write_captions
from mvptr_data.abstract_scenes.layout import lay_out
from mvptr_data.abstract_scenes.records import Scene


def generate_scene(seed: int, index: int) -> Scene:
    """Scene `index` of the world `seed`. A pure function: no scene depends on another, nor on how many are made.

    Raises `ValueError` if `seed` or `index` is negative.
    """
    drop = plan_backdrop(seed, index)
    layout = lay_out(seed, index, drop)
    silent = Scene(
        seed=seed,
        index=index,
        background=drop.background,
        things=layout.things,
        relations=layout.relations,
        captions=(),
    )
    return replace(silent, captions=write_captions(silent))
