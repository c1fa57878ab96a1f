"""Training: its pictures, its schedule, and that it learns."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mvptr_data.abstract_scenes import COLORS, KINDS, SIZES, generate_scene
from mvptr_data.detectors.compact.losses import batch_losses
from mvptr_data.detectors.compact.model import initial_model
from mvptr_data.detectors.compact.pictures import WORLD_NAMES, labeled_picture, training_batch, training_batches
from mvptr_data.detectors.compact.train import main
from mvptr_data.detectors.compact.training import Progress, TrainingSettings, learning_rate, train
from mvptr_data.detectors.compact.weights import load_weights
from mvptr_data.errors import InputError


def test_a_picture_carries_its_truth() -> None:
    pixels, (truth,) = training_batch(11, 5, 1)
    scene = generate_scene(11, 5)
    assert pixels.shape == (1, 3, 256, 256) and pixels.dtype == torch.uint8
    assert truth.boxes.tolist() == [list(thing.box) for thing in scene.things]
    said = [
        (KINDS[kind - 1], COLORS[color], SIZES[size])
        for kind, color, size in zip(truth.kinds.tolist(), truth.colors.tolist(), truth.sizes.tolist(), strict=True)
    ]
    assert said == [(thing.kind, thing.color, thing.size) for thing in scene.things]


def test_pictures_went_through_jpeg() -> None:
    fine, coarse = (labeled_picture(11, 0, quality=quality).image for quality in (95, 40))
    assert fine.size == coarse.size and fine.tobytes() != coarse.tobytes()


def test_batches_drawn_ahead_are_the_batches_in_order() -> None:
    for step, (pixels, truths) in enumerate(training_batches(12, 6, 1)):
        again, (truth,) = training_batch(12, step, 1)
        assert torch.equal(pixels, again) and torch.equal(truths[0].boxes, truth.boxes)
    assert step == 5


def test_the_rate_rises_then_falls_to_zero() -> None:
    settings = TrainingSettings(steps=1000, warm_up=100)
    rates = [learning_rate(settings, step) for step in range(1000)]
    assert rates[0] == pytest.approx(settings.learning_rate / 100)
    assert max(rates) <= settings.learning_rate and rates.index(max(rates)) in range(90, 110)
    assert all(earlier > later for earlier, later in pairwise(rates[110:]))
    assert rates[-1] < 1e-4 * settings.learning_rate


@pytest.mark.parametrize("settings", [{"steps": 0}, {"batch_size": 0}, {"seed": -1}])
def test_settings_that_cannot_train_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InputError):
        TrainingSettings(**settings)


def test_a_few_steps_on_one_batch_bring_every_loss_down() -> None:
    generator = torch.Generator().manual_seed(0)
    model = initial_model(WORLD_NAMES, generator).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    pixels, truths = training_batch(13, 0, 2)
    history = []
    for _ in range(30):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = batch_losses(model, pixels, truths, generator)
        optimizer.zero_grad()
        losses.total().backward()
        optimizer.step()
        history.append(losses.parts())
    for part in history[0]:
        first, last = (sum(step[part] for step in steps) for steps in (history[:3], history[-3:]))
        assert last < 0.8 * first, part


def test_a_seed_decides_the_whole_training() -> None:
    settings = TrainingSettings(steps=2, batch_size=1, warm_up=0)
    reports: list[Progress] = []
    first, again = (train(settings, reports.append).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert [report.step for report in reports] == [2, 2] and reports[0] == reports[1]


def test_the_command_writes_weights_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "small.safetensors"
    threads = str(torch.get_num_threads())  # the command sets torch's number; leave it as the other tests expect it
    main(["--output", str(output), "--steps", "1", "--batch-size", "1", "--seed", "9", "--threads", threads])
    assert load_weights(output).training["seed"] == 9
    printed = capsys.readouterr().out
    assert "step 1/1" in printed and f"wrote {output}" in printed


def test_the_command_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is not there"):
        main(["--output", str(tmp_path / "absent" / "w.safetensors")])
