"""Runs of two processes on gloo: killed, told to stop, gone on with by one process, and failing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.synthetic import write_data_set
from mvptr_model.training.checkpoints import names
from tests.mvptr_model.training.conftest import Given
from tests.mvptr_model.training.curve import curve, places, weights
from tests.mvptr_model.training.ranks import Ranks


def run(world: int, given: dict[str, Any], folder: Path) -> None:
    """Run to the end, and see that all ranks ended well."""
    ranks = Ranks(world, given, folder)
    assert ranks.wait() == [0] * world, ranks.said(0)


def test_a_killed_run_repeats_the_undisturbed_curve(given: Given, tmp_path: Path) -> None:
    """ZeRO 2, dropout 0.1, two parts a batch; SIGKILL in the first stage and in the second."""
    changes = {"batches": {"global_batch": 16, "accumulation": 2}, "checkpoints": {"steps": 3, "minutes": None}}
    whole, broken = given("whole", **changes), given("broken", **changes)
    run(2, whole, tmp_path / "errors")
    for lines in (5, 11):  # of 13
        killed = Ranks(2, broken, tmp_path / "errors")
        killed.until_lines(lines)
        killed.kill()
    run(2, broken, tmp_path / "errors")
    assert curve(broken["output"]) == curve(whole["output"])
    assert places(whole["output"])[-1] == (2, 6)
    assert weights(broken["output"]) == weights(whole["output"])


def test_one_rank_goes_on_where_two_stopped(given: Given, tmp_path: Path) -> None:
    """Through DeepSpeed's universal checkpoint; float32 without dropout. SIGTERM for one rank stops both."""
    model = {**given()["model"], "dropout": 0.0, "attention_dropout": 0.0}
    two, one = given("two", model=model), given("one", model=model)
    run(2, two, tmp_path / "errors")
    for lines, world in ((3, 2), (8, 1)):
        ranks = Ranks(world, one, tmp_path / "errors")
        ranks.until_lines(lines)
        process = ranks.processes[-1]
        assert process.pid is not None
        os.kill(process.pid, signal.SIGTERM)
        assert ranks.wait() == [143] * world, ranks.said(0)
    run(2, one, tmp_path / "errors")
    assert places(one["output"]) == places(two["output"])
    found, expected = ([record["loss"] for record in curve(given["output"])] for given in (one, two))
    assert found == pytest.approx(expected, abs=1e-4)
    assert found[:3] == expected[:3]


def test_one_ranks_corrupt_shard_ends_all(given: Given, shards: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "data"))
    tar = next(copy.glob("regions/*0.tar"))
    tar.write_bytes(tar.read_bytes().replace(b"\x93NUMPY", b"\x93NUMPX", 1))
    settings = given(data=[str(copy)], checkpoints={"steps": 1, "minutes": None}, stages=[{"stage": 1, "epochs": 2}])
    ranks = Ranks(2, settings, tmp_path / "errors")
    assert ranks.wait() == [1, 1]
    said = [ranks.said(rank) for rank in (0, 1)]
    assert sorted(line.split(":")[0] for line in said) == ["DamagedFileError", "ToldError"]
    assert said[0].split(": ", 1)[1] == said[1].split(": ", 1)[1]


def test_a_lost_rank_ends_the_other(given: Given, tmp_path: Path) -> None:
    ranks = Ranks(2, given(stages=[{"stage": 1, "steps": 500}]), tmp_path / "errors")
    ranks.until_lines(2)
    lost = ranks.processes[1]
    assert lost.pid is not None
    os.kill(lost.pid, signal.SIGKILL)
    assert ranks.wait() == [1, -signal.SIGKILL]
    assert ranks.said(0).startswith("ToldError: another rank has ended")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"stages": [{"stage": 1, "steps": 9, "learning_rate": 1e-4}]}, "stages: "),
        ({"checkpoints": {"minutes": None, "steps": 1}}, "checkpoints.steps: None -> 1"),
        ({"data": "other"}, "rank 1 reads other data than the first rank"),
    ],
)
def test_ranks_with_other_settings_or_data_are_refused(
    given: Given, shards: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    if "data" in change:
        write_data_set(str(tmp_path / "other"), 60, regions=6, per_shard=12)
        manifests = [json.loads((root / "manifest.json").read_text()) for root in (shards, tmp_path / "other")]
        assert manifests[0]["phrase_vocab"]["digest"] == manifests[1]["phrase_vocab"]["digest"]
        change = {"data": [str(tmp_path / "other")]}
    first = given(stages=[{"stage": 1, "steps": 4}])
    ranks = Ranks(2, first, tmp_path / "errors", others=first | change)
    assert ranks.wait() == [1, 1]
    assert ranks.said(1).startswith("ConfigurationMismatchError: ") and said in ranks.said(1)
    assert ranks.said(0).startswith("ToldError: ") and said in ranks.said(0)
    assert not list(Path(first["output"]).glob("log.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "zero"), [("fp32", 0), ("bf16", 1), ("bf16", 2), ("fp16", 2)])
def test_killed_at_any_moment(given: Given, tmp_path: Path, precision: str, zero: int) -> None:
    """Twelve kills at random moments, also while a checkpoint is written or the run begins."""
    changes = {
        "precision": {"type": precision},
        "zero": {"stage": zero},
        "stages": [{"stage": 1, "steps": 40, "learning_rate": 1e-3}, {"stage": 2, "steps": 40}],
        "checkpoints": {"steps": 2, "minutes": None, "keep": 2},
    }
    whole, broken = given("whole", **changes), given("broken", **changes)
    run(2, whole, tmp_path / "errors")
    random = Random(zero)
    for _ in range(12):
        killed = Ranks(2, broken, tmp_path / "errors")
        end = random.uniform(0.5, 8.0)
        for process in killed.processes:
            process.join(end)
            end = 0.0
        killed.kill()
    run(2, broken, tmp_path / "errors")
    assert curve(broken["output"]) == curve(whole["output"])
    assert weights(broken["output"]) == weights(whole["output"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "zero", "tolerance"), [("fp32", 0, 1e-4), ("fp32", 1, 1e-4), ("bf16", 1, 0.1), ("fp16", 2, 0.02)]
)
def test_another_number_of_ranks(given: Given, tmp_path: Path, precision: str, zero: int, tolerance: float) -> None:
    model = {**given()["model"], "dropout": 0.0, "attention_dropout": 0.0}
    changes = {
        "model": model,
        "precision": {"type": precision},
        "zero": {"stage": zero},
        "checkpoints": {"steps": 3, "minutes": None},
    }
    two, one = given("two", **changes), given("one", **changes)
    run(2, two, tmp_path / "errors")
    killed = Ranks(2, one, tmp_path / "errors")
    killed.until_lines(5)
    killed.kill()
    assert names(Path(one["output"])) == ["stage-1-step-00000003"]
    run(1, one, tmp_path / "errors")
    found, expected = ([record["loss"] for record in curve(given["output"])] for given in (one, two))
    assert found == pytest.approx(expected, abs=tolerance)
    assert found[:3] == expected[:3]
