from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.synthetic import write_data_set
from mvptr_model.saved_model import load_model
from mvptr_model.training.log import read_log
from pipelines.train_cli import main

ROOT = Path(__file__).resolve().parents[3]
PIECES = "a man in red shirt rides the small brown horse on green grass near old wooden fence"
CONFIG = """
data: [{data}]
output: {output}
initial: {{word_pieces: {words}}}
model: {{hidden_size: 24, heads: 3, feed_forward_size: 48, layers: 2, positions: 64, wpg_layer: 1}}
batches: {{global_batch: 8}}
stages: [{{stage: 1, steps: 4}}, {{stage: 2, steps: 3}}]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    write_data_set(str(root / "data"), 24, regions=4, per_shard=12)
    (root / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES.split()]) + "\n")
    return root


@pytest.fixture
def config(data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG.format(data=data / "data", words=data / "vocab.txt", output=tmp_path / "run"))
    return path


def test_a_run_from_the_command_line(config: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["pretrain", str(config), "stages.1.steps=2", "--quiet"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [str(tmp_path / "run" / "stage-2")]
    assert [(one["stage"], one["step"]) for one in read_log(tmp_path / "run")][-1] == (2, 2)
    assert load_model(tmp_path / "run" / "stage-2").words.size == 22
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["stages"][1]["steps"] == 2
    assert list((tmp_path / "run" / "logs").glob("pretrain-*.log"))
    assert list((tmp_path / "run" / "tensorboard" / "stage-1").iterdir())
    drawn = CliRunner().invoke(main, ["plot", str(tmp_path / "run")], catch_exceptions=False)
    assert drawn.stdout.strip() == str(tmp_path / "run" / "curves.png")
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["batches.global=3"], "there is no setting batches.global"),
        (["data=[nowhere]"], "nowhere"),
        (["initial.word_pieces=nowhere.txt"], "cannot read the word pieces at nowhere.txt"),
        (["initial.model=nowhere"], "there is no model at"),
        (["--resume", "nowhere"], "nowhere is no checkpoint of"),
        (["batches.accumulation=3"], "no 3 equal parts"),
    ],
)
def test_errors_are_one_line(config: Path, tmp_path: Path, changes: list[str], said: str) -> None:
    done = CliRunner().invoke(main, ["pretrain", str(config), *changes], catch_exceptions=False)
    assert done.exit_code == 1
    assert said in done.stderr and "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("Error: ")]) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("local_rank", "lines"), [("0", 1), ("1", 0)])
def test_one_rank_of_each_machine_misses_its_file(tmp_path: Path, local_rank: str, lines: int) -> None:
    """The first rank may have it, and say nothing."""
    environment = {"RANK": "3", "LOCAL_RANK": local_rank}
    done = CliRunner().invoke(
        main, ["pretrain", str(tmp_path / "nowhere.yaml")], env=environment, catch_exceptions=False
    )
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == lines


def test_help_shows_an_example() -> None:
    for words in ([], ["pretrain"], ["plot"]):
        shown = CliRunner().invoke(main, [*words, "--help"])
        assert shown.exit_code == 0
        assert "mvptr-train" in shown.output


def test_the_version_names_the_formats() -> None:
    shown = CliRunner().invoke(main, ["--version"])
    assert shown.exit_code == 0
    assert [line.split(":")[0].split()[0] for line in shown.output.splitlines()] == [
        "mvptr-train",
        "model",
        "checkpoint",
        "settings",
    ]


@pytest.mark.slow
def test_torchrun_and_sigterm(config: Path, tmp_path: Path) -> None:
    """Two ranks under torchrun, which is told to end: they save, and the same command goes on."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "pipelines.train_cli", "pretrain", str(config), "stages.0.steps=30"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    log = tmp_path / "run" / "log.jsonl"
    running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        end = time.monotonic() + 200
        while running.poll() is None and time.monotonic() < end and not (log.exists() and log.stat().st_size):
            time.sleep(0.01)
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=200)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode
    assert said.count("stopped by SIGTERM: saved") == 1
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert checkpoint.name.startswith("stage-1-step-")
    done = CliRunner().invoke(main, ["pretrain", str(config), "stages.0.steps=30"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert f"going on from {checkpoint.name}" in done.stderr
    assert [one["step"] for one in read_log(tmp_path / "run") if one["stage"] == 1] == list(range(1, 31))
