"""The recipes of pre-training: what they ask for can be had."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from mvptr_model.training.settings_file import read_settings, resolved, settings_of
from pipelines.train_cli.pretrain import pretrain_command

RECIPES = Path(__file__).resolve().parents[2] / "pipelines" / "recipes"
SCRIPT = RECIPES / "slurm-pretrain.sh"
#: Commands of a cluster, which write down how they are called.
COMMANDS = {
    "scontrol": '[[ $1 = show ]] && echo node7 && echo node8 || echo "scontrol $*" >> calls',
    "scancel": 'echo "scancel $*" >> calls; kill -TERM "$(cat running)"',
    "srun": 'while [[ $1 = --* ]]; do shift; done; exec "$@"',
    "torchrun": 'printf "%s\\n" "$@" > arguments; echo $$ > running; [[ -e wait ]] && exec sleep 60; true',
}


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on a cluster of such commands."""
    (tmp_path / "bin").mkdir()
    for name, does in COMMANDS.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/bash\n{does}\n")
        path.chmod(0o755)
    job = {"SLURM_JOB_ID": "17", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "64", "SLURM_JOB_NODELIST": "node[7-8]"}
    return {**os.environ, **job, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


def test_the_papers_recipe_has_every_default() -> None:
    recipe = resolved(read_settings(str(RECIPES / "pretrain-paper.yaml")))
    expected = resolved(
        settings_of(
            {"data": ["coco"], "output": "runs/paper", "initial": {"bert": "bert-base-uncased"}},
            {"precision": {"type": "bf16"}},
        )
    )
    assert recipe == expected


def test_every_key_is_in_the_papers_recipe() -> None:
    text = (RECIPES / "pretrain-paper.yaml").read_text()
    values = resolved(read_settings(str(RECIPES / "pretrain-paper.yaml")))
    for name, value in values.items():
        assert f"\n{name}:" in text
        if isinstance(value, dict):
            assert all(f"{inner}:" in text for inner in value)


def test_the_job_calls_what_there_is(cluster: dict[str, str], tmp_path: Path) -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0
    job = ["bash", str(SCRIPT), "paper.yaml", "data=[coco, flickr30k]", "output=runs/a b"]
    assert subprocess.run(job, env=cluster, cwd=tmp_path, check=False).returncode == 0
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[:4] == ["--nnodes", "2", "--nproc-per-node", "8"]
    assert "node7:29500" in arguments
    words = arguments[arguments.index("mvptr-train") + 1 :]
    assert words[0] == "pretrain"
    context = pretrain_command.make_context("pretrain", words[1:])
    assert context.params["config"] == "paper.yaml"
    assert context.params["changes"] == ("data=[coco, flickr30k]", "output=runs/a b")
    assert context.params["resume"] == "auto"
    assert not (tmp_path / "calls").exists()


def test_ones_own_resume_counts_until_the_job_is_queued_again(cluster: dict[str, str], tmp_path: Path) -> None:
    job = ["bash", str(SCRIPT), "paper.yaml", "--resume", "run/checkpoints/stage-1-step-00000004"]
    for restarts, resume in (({}, job[-1]), ({"SLURM_RESTART_COUNT": "1"}, "auto")):
        assert subprocess.run(job, env=cluster | restarts, cwd=tmp_path, check=False).returncode == 0
        arguments = (tmp_path / "arguments").read_text().splitlines()
        context = pretrain_command.make_context("pretrain", arguments[arguments.index("mvptr-train") + 2 :])
        assert context.params["resume"] == resume


def test_a_job_whose_time_is_up_queues_again(cluster: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "wait").touch()
    running = subprocess.Popen(["bash", str(SCRIPT), "paper.yaml"], env=cluster, cwd=tmp_path)
    number, deadline = tmp_path / "running", time.monotonic() + 60
    while not (number.exists() and number.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.terminate()
    assert running.wait(60) == 143
    assert (tmp_path / "calls").read_text().splitlines() == ["scancel --signal=TERM 17", "scontrol requeue 17"]


def test_a_job_needs_a_configuration(cluster: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(["bash", str(SCRIPT)], env=cluster, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode
    assert "usage: sbatch" in done.stderr
