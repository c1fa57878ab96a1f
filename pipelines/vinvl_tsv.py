"""Regions as the lines of VinVL's TSV files (`reference/detector.md`, "VinVL TSV"; `reference/model.md` 7).

Shapes: K regions of one image.

`import-tsv` reads both. An image of unknown size has its rects in 0..1 and `image_h` and `image_w` null: VinVL's form has no
word for that, and pixels would be invented.
"""

from __future__ import annotations

import binascii
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvptr_data.dataset.records import RegionFacts, geometry
from mvptr_data.sources.refs import image_key


def line_id(key: str) -> str:
    """The id of a key's line: the key, or a path of that key where the key alone would be read as another.

    `import-tsv` takes off what ends like an image's suffix, spaces around an id and a byte order mark before it: `x.jpg`, the
    key of `x.jpg.png`, would come back as `x`.
    """
    return key if image_key(key.strip().removeprefix("\ufeff")) == key else f"./{key}.jpg"


def predictions_line(
    name: str, boxes: NDArray[np.float32], features: NDArray[np.float16] | None, facts: RegionFacts
) -> bytes:
    """`name`, and an object for each of `boxes` [K, 4], with its features [K, 2048] as base64 float32 where they are given."""
    vectors = [None] * len(boxes) if features is None else list(features.astype("<f4"))
    objects = [
        _object(
            {
                "rect": boxes[number].tolist(),
                "bbox_id": number,
                "class": facts.tags[number],
                "class_id": facts.labels[number],
                "conf": facts.scores[number],
                "attributes": facts.attributes[number],
                "attr_scores": facts.attribute_scores[number],
            },
            vectors[number],
        )
        for number in range(len(boxes))
    ]
    rest: dict[str, Any] = {"image_h": facts.height, "image_w": facts.width, "relations": None}
    if facts.gold_tags is not None:
        rest["gt_objects"] = [{"class": tag} for tag in facts.gold_tags]
    body = f'{json.dumps(rest)[:-1]}, "objects": [{", ".join(objects)}]}}'
    return f"{name}\t{body}\n".encode()


def features_line(name: str, boxes: NDArray[np.float32], features: NDArray[np.float16], facts: RegionFacts) -> bytes:
    """`name`, K, and base64 of float32 [K, 2054]: the features, then the six numbers of the geometry."""
    table = np.concatenate(
        [features.astype(np.float32), geometry(boxes, facts.width, facts.height)], axis=1, dtype="<f4"
    )
    return b"%s\t%d\t%s\n" % (name.encode(), len(table), binascii.b2a_base64(table.tobytes(), newline=False))


def _object(facts: dict[str, Any], vector: NDArray[np.float32] | None) -> str:
    """The JSON of an object. Base64 needs no escapes, so it is put in as it is: 11 kB that `json` need not look at."""
    text = json.dumps(facts)
    if vector is None:
        return text
    return f'{text[:-1]}, "feature": "{binascii.b2a_base64(vector.tobytes(), newline=False).decode()}"}}'
