from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np

from mvptr_data.dataset.records import RegionFacts, geometry
from mvptr_data.keys import key_of
from mvptr_data.sources.feature_refs import FeatureSource, list_features
from pipelines.vinvl_tsv import features_line, line_id, predictions_line

FEATURES = np.random.default_rng(5).standard_normal((2, 2048)).astype(np.float16)
BOXES = np.array([[1, 2, 30.5, 40], [0, 0, 64, 48]], np.float32)
FACTS = RegionFacts(
    width=64,
    height=48,
    scores=(0.9, 0.123456),
    labels=(3, 1),
    tags=('a "quoted" man', "日本"),
    attributes=(("red", "tall"), ()),
    attribute_scores=((0.5, 0.25), ()),
)


def test_predictions_are_what_vinvl_writes() -> None:
    line = predictions_line("a/b c", BOXES, FEATURES, FACTS)
    assert line.endswith(b"}\n") and line.count(b"\n") == 1
    key, _, body = line.decode().partition("\t")
    found = json.loads(body)
    assert key == "a/b c" and (found["image_h"], found["image_w"], found["relations"]) == (48, 64, None)
    assert [item["rect"] for item in found["objects"]] == BOXES.tolist()
    assert [item["bbox_id"] for item in found["objects"]] == [0, 1]
    assert [item["class"] for item in found["objects"]] == list(FACTS.tags)
    assert [item["conf"] for item in found["objects"]] == [0.9, 0.123456]
    assert found["objects"][0]["attributes"] == ["red", "tall"] and found["objects"][0]["attr_scores"] == [0.5, 0.25]
    vectors = [np.frombuffer(base64.b64decode(item["feature"]), "<f4") for item in found["objects"]]
    assert (np.stack(vectors) == FEATURES.astype(np.float32)).all()
    assert "gt_objects" not in found


def test_every_key_comes_back_from_its_line(tmp_path: Path) -> None:
    """Of files such as `x.jpg.png` and `IMG 1 .jpg`, whose keys end as names of images do, or in a space."""
    files = [
        "x.jpg.png",
        "x.png",
        "a/b.v2.jpg",
        "IMG 1 .jpg",
        "IMG 1.jpg",
        " y.gif",
        "y.gif",
        "\ufeffz.jpg",
        "z.jpg",
        "日本.tif",
    ]
    keys = [key_of(name) for name in files]
    assert line_id("a/b.v2") == "a/b.v2" and line_id("x.jpg") == "./x.jpg.jpg"
    for turn in range(len(keys)):  # each once in the first line
        turned = keys[turn:] + keys[:turn]
        (tmp_path / "x.tsv").write_bytes(
            b"".join(features_line(line_id(key), BOXES, FEATURES, FACTS) for key in turned)
        )
        refs = [*list_features(FeatureSource(features=str(tmp_path / "x.tsv"), form="features"))]
        assert [ref.key for ref in refs] == turned and all(ref.fault is None for ref in refs)


def test_features_may_stay_out_and_an_image_may_have_no_regions() -> None:
    found = json.loads(predictions_line("k", BOXES, None, FACTS).partition(b"\t")[2])
    assert all("feature" not in item for item in found["objects"])
    nothing = RegionFacts(
        width=None, height=None, scores=(), labels=(), tags=(), attributes=(), attribute_scores=(), gold_tags=("man",)
    )
    found = json.loads(predictions_line("k", BOXES[:0], FEATURES[:0], nothing).partition(b"\t")[2])
    assert found == {
        "image_h": None,
        "image_w": None,
        "relations": None,
        "objects": [],
        "gt_objects": [{"class": "man"}],
    }


def test_features_have_the_geometry_after_them() -> None:
    key, count, text = features_line("k", BOXES, FEATURES, FACTS).rstrip(b"\n").split(b"\t")
    table = np.frombuffer(base64.b64decode(text), "<f4").reshape(2, 2054)
    assert (key, count) == (b"k", b"2")
    assert (table[:, :2048] == FEATURES.astype(np.float32)).all()
    assert (table[:, 2048:] == geometry(BOXES, 64, 48)).all()
