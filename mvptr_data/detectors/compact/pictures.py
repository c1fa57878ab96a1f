"""Drawn pictures with their truth: what the detector trains on and is measured with.

A picture is drawn, stored as JPEG and read back, as the pictures on disk are. The generation parameters of a picture are
functions of (seed, index), so pictures of two seeds are independent.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from PIL import Image

from mvptr_data.abstract_scenes import COLORS, KINDS, SIZES, Thing, draw_scene, generate_scene
from mvptr_data.detectors.compact.names import Names
from mvptr_data.detectors.compact.pixels import to_pixels
from mvptr_data.detectors.compact.targets import Truth

#: What there is to name in the drawn world.
WORLD_NAMES = Names(kinds=KINDS, colors=COLORS, sizes=SIZES)

#: JPEG quality of the pictures on disk (`abstract_scenes.write_world`), and the half-open range that training varies it over.
WRITTEN_QUALITY = 95
TRAINING_QUALITIES = (70, 98)

#: Batches drawn ahead of the one in use.
_AHEAD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LabeledPicture:
    """One picture as a reader of its JPEG file sees it, and what is on it."""

    image: Image.Image
    things: tuple[Thing, ...]


def labeled_picture(seed: int, index: int, *, quality: int = WRITTEN_QUALITY) -> LabeledPicture:
    """Picture number `index` of the world `seed`, after a JPEG round trip without chroma subsampling."""
    scene = generate_scene(seed, index)
    file = io.BytesIO()
    draw_scene(scene).save(file, format="JPEG", quality=quality, subsampling=0)
    with Image.open(file) as image:
        return LabeledPicture(image=image.convert("RGB"), things=scene.things)


def truth_of(things: Sequence[Thing]) -> Truth:
    """The things of a picture at the network's own size as tensors."""
    return Truth(
        boxes=torch.tensor([thing.box for thing in things], dtype=torch.float32),
        kinds=torch.tensor([KINDS.index(thing.kind) + 1 for thing in things]),
        colors=torch.tensor([COLORS.index(thing.color) for thing in things]),
        sizes=torch.tensor([SIZES.index(thing.size) for thing in things]),
    )


def training_batch(seed: int, step: int, batch_size: int) -> tuple[torch.Tensor, list[Truth]]:
    """uint8 [B, 3, H, W] and the truth of batch number `step`; no two steps share a picture."""
    first = step * batch_size
    pictures = [
        labeled_picture(seed, index, quality=int(np.random.default_rng((seed, index)).integers(*TRAINING_QUALITIES)))
        for index in range(first, first + batch_size)
    ]
    return torch.stack([to_pixels(picture.image) for picture in pictures]), [truth_of(p.things) for p in pictures]


def training_batches(seed: int, steps: int, batch_size: int) -> Iterator[tuple[torch.Tensor, list[Truth]]]:
    """`training_batch` for every step in turn, drawn ahead by one thread beside the training."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="draw") as pool:
        upcoming = (pool.submit(training_batch, seed, step, batch_size) for step in range(steps))
        drawing = list(islice(upcoming, _AHEAD))
        while drawing:
            batch = drawing.pop(0).result()
            drawing.extend(islice(upcoming, 1))
            yield batch
