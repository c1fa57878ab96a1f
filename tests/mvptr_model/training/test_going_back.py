"""Going on from a checkpoint that was named, or past damaged ones; and with other settings after a run diverged."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mvptr_data.errors import ConfigurationMismatchError, DamagedFileError, InputError, MvptrError
from mvptr_model.saved_model import load_model
from mvptr_model.training import engine as engines
from mvptr_model.training import stage as stages
from mvptr_model.training.checkpoint_model import load_start
from mvptr_model.training.checkpoints import names
from mvptr_model.training.pretrain import pretrain
from mvptr_model.training.processes import StoppedError
from mvptr_model.training.schedule import learning_rate
from mvptr_model.training.settings import PretrainSettings, StageSettings
from mvptr_model.training.settings_file import settings_of
from tests.mvptr_model.training.conftest import Given, Settings
from tests.mvptr_model.training.curve import Heard, curve, places, weights
from tests.mvptr_model.training.ranks import Ranks


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def stop_at_once(settings: PretrainSettings, resume: str = "auto") -> StoppedError:
    """The run, told to end before its first step."""

    class AtOnce(Heard):
        def begin(self, stage: int, done: int, steps: int) -> None:
            terminate()

    with pytest.raises(StoppedError) as stop:
        pretrain(settings, resume=resume, listener=AtOnce())
    return stop.value


def steps(output: str) -> list[str]:
    return [name.removeprefix("stage-").replace("step-0000000", "") for name in names(Path(output))]


def test_a_finished_run_that_goes_back_is_not_finished(small: Settings) -> None:
    settings = small(checkpoints={"steps": 3, "minutes": None})
    pretrain(settings)
    expected, sha256 = curve(settings.output), weights(settings.output)
    back = str(Path(settings.output) / "checkpoints" / "stage-1-step-00000003")
    stop = stop_at_once(settings, back)
    assert "saved" in stop.message and stop.mend == "The same command with --resume auto goes on from there."
    assert steps(settings.output) == ["1-3", "1-4"]
    assert not list(Path(settings.output).glob("stage-*/model.json"))
    pretrain(settings)
    assert curve(settings.output) == expected
    assert weights(settings.output) == sha256


def test_damaged_checkpoints_do_not_outlive_new_ones(small: Settings) -> None:
    changes = {"stages": [{"stage": 1, "steps": 8}], "checkpoints": {"steps": 2, "minutes": None}}
    settings = small(**changes)
    with pytest.raises(StoppedError) as stop:
        pretrain(settings, listener=Heard({(1, 6): terminate}))
    assert stop.value.mend == "The same command goes on from there."
    assert steps(settings.output) == ["1-4", "1-6", "1-7"]

    def damage(*which: int) -> None:
        for number in which:
            next(
                (Path(settings.output) / "checkpoints" / names(Path(settings.output))[number]).glob("*/zero*")
            ).unlink()

    damage(1, 2)
    fewer = small(stages=[{"stage": 1, "steps": 8}], checkpoints={"steps": None, "minutes": None, "keep": 2})
    stop_at_once(fewer)
    assert steps(settings.output) == ["1-4", "1-5"]
    damage(0, 1)
    lines = (Path(settings.output) / "log.jsonl").read_bytes()
    with pytest.raises(DamagedFileError, match="none of the 2 checkpoints of stage 1"):
        pretrain(fewer)
    assert (Path(settings.output) / "log.jsonl").read_bytes() == lines


@pytest.fixture
def diverges(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`diverges(5)`: from the fifth step on, the learning rate is beyond all measure, but for low ones."""

    def at(step: int) -> None:
        def rate(stage: StageSettings, done: int, steps: int) -> float:
            return 1e30 if done + 1 >= step and stage.learning_rate > 1e-4 else learning_rate(stage, done, steps)

        monkeypatch.setattr(stages, "learning_rate", rate)

    return at


def test_a_run_that_diverged_goes_on_as_its_message_says(small: Settings, diverges: Callable[[int], None]) -> None:
    checkpoints = {"steps": 2, "minutes": None}
    settings = small(stages=[{"stage": 1, "steps": 8, "learning_rate": 1e-3}], checkpoints=checkpoints)
    lower = small(
        stages=[{"stage": 1, "steps": 8, "learning_rate": 1e-4}],
        checkpoints=checkpoints,
        optimizer={"clipping": 0.5, "weight_decay": 0.1},
    )
    diverges(5)
    with pytest.raises(MvptrError, match=r"(is nan|is inf) in step \d of stage 1") as error:
        pretrain(settings)
    before = curve(settings.output)[:4]
    with pytest.raises(ConfigurationMismatchError, match="learning_rate"):
        pretrain(lower)
    named = re.search(r"--resume (\S+),", str(error.value))
    assert named is not None and "lower learning_rate or optimizer.clipping" in str(error.value)
    with pytest.raises(ConfigurationMismatchError, match="seed: 0 -> 1"):
        pretrain(small(stages=[{"stage": 1, "steps": 8, "learning_rate": 1e-4}], seed=1), resume=named[1])
    assert Path(named[1]).name == "stage-1-step-00000004"
    assert (Path(settings.output) / "settings.json").read_text().count("changes") == 0
    heard = Heard({(1, 6): terminate})
    with pytest.raises(StoppedError):
        pretrain(lower, resume=named[1], listener=heard)
    assert "changed from here on: optimizer.clipping: 10.0 -> 0.5" in heard.lines
    pretrain(lower)  # known again
    assert curve(settings.output)[:4] == before
    assert places(settings.output) == [(1, step) for step in range(1, 9)]
    stored = json.loads((Path(settings.output) / "settings.json").read_text())
    assert stored["optimizer"]["clipping"] == 0.5
    (change,) = stored["changes"]
    assert change["from"] == "stage-1-step-00000004" and len(change["differences"]) == 3


@pytest.mark.parametrize("zero", [0, 2])
def test_clipping_and_weight_decay_are_the_settings(
    small: Settings, zero: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeepSpeed brings back those that a checkpoint was written with."""
    changes = {"stages": [{"stage": 1, "steps": 4}], "zero": {"stage": zero}}
    settings = small(checkpoints={"steps": 2, "minutes": None}, **changes)
    pretrain(settings)
    used: list[tuple[float, float]] = []
    made = engines.step

    def noted(engine: object, settings: PretrainSettings) -> tuple[float, bool]:
        clipping = getattr(engine.optimizer, "clip_grad", None) or engine.gradient_clipping()  # type: ignore[attr-defined]
        used.append((clipping, engine.optimizer.param_groups[0]["weight_decay"]))  # type: ignore[attr-defined]
        return made(engine, settings)  # type: ignore[arg-type]

    monkeypatch.setattr(engines, "step", noted)
    other = small(optimizer={"clipping": 0.5, "weight_decay": 0.25}, **changes)
    pretrain(other, resume=str(Path(settings.output) / "checkpoints" / "stage-1-step-00000002"))
    assert used == [(0.5, 0.25)] * 2


@pytest.mark.parametrize(("world", "precision", "zero"), [(1, "fp32", 0), (2, "bf16", 2)])
def test_a_run_may_begin_with_a_checkpoint(given: Given, tmp_path: Path, world: int, precision: str, zero: int) -> None:
    """With the float32 weights that the run had there, of which DeepSpeed has a copy in the precision of the passes."""
    stage = {"stage": 2, "steps": 3, "learning_rate": 1e-3}
    values = given("a", stages=[stage], checkpoints={"steps": 2, "minutes": None}, precision={"type": precision})
    values["zero"] = {"stage": zero}
    ranks = Ranks(world, values, tmp_path / "errors")
    assert ranks.wait() == [0] * world, ranks.said(0)
    folder = Path(values["output"]) / "checkpoints" / "stage-2-step-00000002"
    states = torch.load(folder / "engine" / "mp_rank_00_model_states.pt", weights_only=True)["module"]
    found = load_start(str(folder)).model.state_dict()
    begun = load_model(Path(values["output"]) / "initial").model.state_dict()
    learned = [name for name, value in found.items() if not torch.equal(value, begun[name])]
    assert len(learned) > 50
    for name, value in found.items():
        assert value.dtype == torch.float32
        assert torch.equal(value.to(states[name].dtype), states[name].reshape(value.shape)), name
    rounded = all(torch.equal(found[name], states[name].float().reshape(found[name].shape)) for name in learned)
    assert rounded == (precision == "fp32")

    other = settings_of(given("b", initial={"model": str(folder)}, stages=[stage | {"steps": 1}], seed=3))
    pretrain(other)
    again = load_model(Path(other.output) / "initial").model.state_dict()
    assert all(torch.equal(again[name], value) for name, value in found.items())
    lonely = folder.rename(Path(other.output) / folder.name)
    with pytest.raises(InputError, match="Give the checkpoint where its run wrote it"):
        load_start(str(lonely))
    (lonely / "engine" / "mp_rank_00_model_states.pt").write_bytes(b"")
    with pytest.raises(DamagedFileError, match="manifest promises"):
        load_start(str(lonely))
