"""A world on disk: pictures, captions as a user would bring them, and the truth beside them."""

from __future__ import annotations

import io
import os

from mvptr_data.abstract_scenes.drawing import draw_scene
from mvptr_data.abstract_scenes.records import Scene
from mvptr_data.abstract_scenes.scenes import generate_scene
from mvptr_data.abstract_scenes.truth import scene_key, truth_header, truth_line
from mvptr_data.errors import InputError
from mvptr_data.storage import Store, canonical_json


def picture_bytes(scene: Scene) -> bytes:
    """The picture as JPEG, quality 95, colors at full resolution (4:4:4)."""
    buffer = io.BytesIO()
    draw_scene(scene).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def caption_line(scene: Scene) -> bytes:
    """The scene's line of captions.jsonl: `{"captions": [...], "image": "000000.jpg"}`."""
    texts = [caption.text for caption in scene.captions]
    return canonical_json({"image": f"{scene_key(scene.index)}.jpg", "captions": texts}) + b"\n"


def write_world(directory: str | os.PathLike[str], count: int, seed: int) -> None:
    """Write `count` scenes of the world `seed`: images/{key}.jpg, captions.jsonl and, last, truth.jsonl.

    Every file is written whole or not at all, and its bytes depend on `count` and `seed` alone (and on Pillow's JPEG
    encoder). Writing the same world again changes nothing. Raises `InputError` if `count` or `seed` is out of range, or
    if the directory holds pictures that are not of this world.
    """
    if count < 1 or seed < 0:
        raise InputError(
            f"cannot draw {count} scenes of world {seed}", "Give a count of at least 1 and a seed of at least 0."
        )
    store = Store.at(directory)
    strangers = sorted(set(store.names("images")) - {f"images/{scene_key(index)}.jpg" for index in range(count)})
    if strangers:
        raise InputError(
            f"{store.path('images')} holds {len(strangers)} files that are not of this world, such as {strangers[0]!r}",
            "Give an empty directory.",
        )

    # Of the two, the one opened first takes its name last: where truth.jsonl stands, everything else does.
    with store.writing("truth.jsonl") as truth, store.writing("captions.jsonl") as captions:
        truth.write(truth_header(seed=seed, count=count))
        for index in range(count):
            scene = generate_scene(seed, index)
            store.write(f"images/{scene_key(index)}.jpg", picture_bytes(scene))
            captions.write(caption_line(scene))
            truth.write(truth_line(scene))
