from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mvptr_data.errors import OutputError
from mvptr_model.training.log import RunLog, flattened, read_log


def record(stage: int, step: int) -> dict[str, Any]:
    return {
        "stage": stage,
        "step": step,
        "loss": 1.5 * step,
        "losses": {"vsc": 0.5},
        "gradient_norm": None,
        "overflow": False,
    }


def write(output: Path, stage: int, done: int, steps: int, *, tensorboard: bool = False) -> None:
    log = RunLog(output, stage, done, tensorboard=tensorboard)
    for step in range(done + 1, done + steps + 1):
        log.write(record(stage, step))
    log.close()


def test_each_step_has_one_line(tmp_path: Path) -> None:
    write(tmp_path, 1, 0, 4)
    write(tmp_path, 2, 0, 5)
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'{"stage": 2, "step": 6, "lo')  # killed while it wrote
    assert len(read_log(tmp_path)) == 9
    write(tmp_path, 2, 3, 1)
    found = [(one["stage"], one["step"]) for one in read_log(tmp_path)]
    assert found == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (2, 3), (2, 4)]
    write(tmp_path, 1, 2, 1)
    assert [(one["stage"], one["step"]) for one in read_log(tmp_path)] == [(1, 1), (1, 2), (1, 3)]


def test_tensorboard_has_each_step_once(tmp_path: Path) -> None:
    write(tmp_path, 1, 0, 5, tensorboard=True)
    write(tmp_path, 1, 3, 4, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "stage-1"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(step, 1.5 * step) for step in range(1, 8)]
    assert set(events.Tags()["scalars"]) == {"loss", "losses/vsc", "overflow"}


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Files can grow no larger within the block, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_once_and_whole_lines_are_kept(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 1, 0, tensorboard=False)
    log.write(record(1, 1))
    with files_up_to(150):
        with pytest.raises(OutputError, match=r"cannot write to .*: File too large"):
            log.write(record(1, 2))
        log.close()
    assert (tmp_path / "log.jsonl").stat().st_size == 150
    assert [one["step"] for one in read_log(tmp_path)] == [1]
    write(tmp_path, 1, 1, 2)
    assert [one["step"] for one in read_log(tmp_path)] == [1, 2, 3]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_under_tensorboard_is_told_once(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 1, 0, tensorboard=True)
    with files_up_to(1000):
        with pytest.raises(OutputError, match=r"TensorBoard's files .*: File too large.*log\.tensorboard=false"):
            for step in range(1, 8):
                log.write(record(1, step))
                log.sync()
        log.close()


def test_what_is_flattened() -> None:
    assert flattened(record(1, 2)) == {"loss": 3.0, "losses/vsc": 0.5, "overflow": 0.0}
