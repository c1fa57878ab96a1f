from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from mvptr_data.errors import ConfigurationMismatchError, InputError
from pipelines.cluster import ClusterOptions
from pipelines.demo import DemoSummary, run_demo
from pipelines.demo.learning import DemoTraining
from pipelines.demo.report import model_table

INLINE = ClusterOptions(cluster="inline")
#: Too short to learn anything: that the demo learns is for `make demo` to show.
SHORT = DemoTraining(first_steps=3, second_steps=3, pairs=8)
FIGURES = {
    "image_to_text_r1",
    "text_to_image_r1",
    "coarse_rsum",
    "reranked_rsum",
    "grounding_accuracy",
    "mlm_accuracy",
}


def demo(folder: Path, pictures: int = 60, training: DemoTraining = SHORT) -> DemoSummary:
    return run_demo(str(folder), pictures=pictures, unseen=12, seed=3, training=training, cluster=INLINE, quiet=True)


def test_the_demo_ends_with_a_summary_measured_against_the_truth(tmp_path: Path) -> None:
    summary = demo(tmp_path)
    written = json.loads((tmp_path / "summary.json").read_text())
    _check_data(summary, written["data"])
    _check_model(summary, written["model"])
    samples = list((tmp_path / "pictures").glob("0*.png"))
    grounded = list((tmp_path / "pictures").glob("grounded-*.png"))
    assert len(samples) == 3 and grounded
    for picture in (*grounded, tmp_path / "curves.png"):
        with Image.open(picture) as image:
            image.load()
            assert min(image.size) > 300

    made = [tmp_path / "world/truth.jsonl", tmp_path / "training/run/stage-2/model.json"]
    times = [path.stat().st_mtime_ns for path in made]
    again = demo(tmp_path)
    assert [path.stat().st_mtime_ns for path in made] == times
    assert (again.data.tag_recall, again.data.phrase_f1) == (summary.data.tag_recall, summary.data.phrase_f1)
    assert (again.model.trained, again.model.grounding) == (summary.model.trained, summary.model.grounding)
    assert (again.data.seconds, again.model.seconds) == (written["data"]["seconds"], written["model"]["seconds"])

    with pytest.raises(ConfigurationMismatchError, match="60 pictures with seed 3"):
        demo(tmp_path, pictures=61)
    with pytest.raises(ConfigurationMismatchError, match="steps"):
        demo(tmp_path, training=DemoTraining(first_steps=3, second_steps=4, pairs=8))


def _check_data(summary: DemoSummary, written: dict[str, float]) -> None:
    assert set(written) == {
        "images",
        "samples",
        "shards",
        "tag_recall",
        "attribute_accuracy",
        "box_recall",
        "phrase_f1",
        "seconds",
    }
    data = summary.data
    assert (data.images, data.samples, data.shards) == (60, 60, 1)
    assert (written["images"], written["samples"], written["shards"]) == (60, 60, 1)
    assert data.box_recall > 0.9 and data.tag_recall > 0.9
    assert data.attribute_accuracy > 0.95 and data.phrase_f1 > 0.9


def _check_model(summary: DemoSummary, written: dict[str, object]) -> None:
    assert set(written) >= FIGURES | {"chance", "untrained", "seconds"}
    for part in ("chance", "untrained"):
        assert isinstance(written[part], dict) and set(written[part]) >= FIGURES
    model = summary.model
    assert (model.pictures, model.captions) == (12, 60)
    # Guessing: a picture has 5 of 60 captions, a caption one of 12 pictures.
    assert model.chance.image_to_text_r1 == pytest.approx(5 / 60)
    assert model.chance.text_to_image_r1 == pytest.approx(1 / 12)
    assert model.chance.grounding_accuracy >= model.grounding.random_box
    assert model.grounding.phrases > 10 and model.grounding.upper_bound > 0.9
    # Six steps change a model, if not for the better.
    assert model.trained != model.untrained
    table = "\n".join(model_table(model))
    assert f"{100 * model.trained.coarse.image_to_text.r5:4.1f}" in table
    assert f"{model.chance.coarse_rsum:.1f}" in table


def test_a_url_is_refused() -> None:
    with pytest.raises(InputError, match="is a URL"):
        run_demo("s3://bucket/demo", quiet=True)
