from __future__ import annotations

import json
from pathlib import Path

import pytest

from mvptr_data.errors import ConfigurationMismatchError
from pipelines.cluster import ClusterOptions
from pipelines.demo import run_demo

INLINE = ClusterOptions(cluster="inline")


def test_the_demo_ends_with_a_summary_measured_against_the_truth(tmp_path: Path) -> None:
    summary = run_demo(str(tmp_path), pictures=60, seed=3, cluster=INLINE, quiet=True)
    written = json.loads((tmp_path / "summary.json").read_text())["data"]
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
    assert (
        (summary.images, summary.samples, summary.shards)
        == (60, 60, 1)
        == (written["images"], written["samples"], written["shards"])
    )
    assert summary.box_recall > 0.9 and summary.tag_recall > 0.9
    assert summary.attribute_accuracy > 0.95 and summary.phrase_f1 > 0.9
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 3
    truth = (tmp_path / "world/truth.jsonl").stat().st_mtime_ns
    again = run_demo(str(tmp_path), pictures=60, seed=3, cluster=INLINE, quiet=True)
    assert (tmp_path / "world/truth.jsonl").stat().st_mtime_ns == truth
    assert (again.tag_recall, again.phrase_f1) == (summary.tag_recall, summary.phrase_f1)
    with pytest.raises(ConfigurationMismatchError, match="60 pictures with seed 3"):
        run_demo(str(tmp_path), pictures=61, seed=3, cluster=INLINE, quiet=True)
