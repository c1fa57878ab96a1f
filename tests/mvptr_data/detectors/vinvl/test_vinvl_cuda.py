"""What the detector does on a CUDA device, seen on a pretended one: nothing here knows what a real one's kernels compute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mvptr_data.detectors import Regions
from mvptr_data.detectors.vinvl import detector as module
from pipelines.detector_runner import DetectorRunner
from tests.mvptr_data.detectors.vinvl.small import picture, small_detector
from tests.pretend_cuda import pretend_cuda

PROPOSALS = 20
#: Batches of 2 take them as three, of which two share a size.
SIZES = [(200, 150), (200, 150), (150, 200), (200, 150), (200, 150)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [picture(*size, seed=seed) for seed, size in enumerate(SIZES)]


@pytest.fixture(autouse=True)
def short_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks as they are, on images a third as long."""
    monkeypatch.setattr("mvptr_data.detectors.vinvl.pixels.SHORT_SIDE", 200)


def on_host(folder: Path, pictures: Sequence[Image.Image], **options: Any) -> list[Regions]:
    """What a CPU finds that pools regions as a GPU does; images alone, not in batches, which changes last bits."""
    detector = small_detector(folder, proposals=PROPOSALS, **options)
    detector._model.roi.commuted = False
    return detector.detect(pictures)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"exact": False},
        {"postprocess": "class_agnostic"},
        {"precision": "fp16"},
        {"precision": "bf16", "postprocess": "class_agnostic"},
    ],
    ids=str,
)
def test_every_tensor_is_where_it_is_used_and_read_when_it_is_there(
    folder: Path, pictures: list[Image.Image], options: dict[str, Any]
) -> None:
    tolerance = 1e-5 if options.get("precision", "fp32") == "fp32" else 1e-2
    expected = on_host(folder, pictures, **options)
    with pretend_cuda() as device:
        detector = small_detector(folder, device="cuda", proposals=PROPOSALS, batch_size=2, **options)
        weights = device.allocated
        found = detector.detect(pictures)
        assert weights > 0 and device.allocated == weights
    assert detector.configuration()["device"] == "cuda"
    for there, here in zip(found, expected, strict=True):
        assert there.tags == here.tags and there.attributes == here.attributes
        for name in ("boxes", "features", "scores", "labels"):
            assert np.allclose(getattr(there, name), getattr(here, name), rtol=tolerance, atol=100 * tolerance), name


def test_the_host_waits_once_an_image(folder: Path, pictures: list[Image.Image]) -> None:
    with pretend_cuda() as device:
        detector = small_detector(folder, device="cuda", proposals=PROPOSALS, batch_size=2)
        device.forget()
        detector.detect(pictures)
    proposals = sum(count for line, count in device.waits.items() if "vinvl/rpn.py" in line)
    # At the end the last image's regions and the last two images' attributes are all there is to wait for.
    assert proposals == len(pictures) and sum(device.waits.values()) <= len(pictures) + 3


def test_the_device_has_work_while_the_host_judges_regions(
    folder: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    queued: list[int] = []
    select = module.select_regions
    with pretend_cuda() as device:

        def select_regions(*arguments: Any) -> Any:
            queued.append(device.issued - device.done)
            return select(*arguments)

        monkeypatch.setattr(module, "select_regions", select_regions)
        small_detector(folder, device="cuda", proposals=PROPOSALS, batch_size=2).detect(pictures)
    assert [count > 30 for count in queued] == [True] * (len(pictures) - 1) + [False], queued


def test_memory_that_holds_two_images_sees_all_of_them(folder: Path, pictures: list[Image.Image]) -> None:
    expected = on_host(folder, pictures)
    most = {}
    for size in (2, 4):
        with pretend_cuda() as device:
            small_detector(folder, device="cuda", proposals=PROPOSALS, batch_size=size).detect(pictures)
            most[size] = device.peak
    assert most[2] < most[4]
    with pretend_cuda(capacity=most[2]) as device:
        detector = small_detector(folder, device="cuda", proposals=PROPOSALS, batch_size=8)
        weights = device.allocated
        runner = DetectorRunner(detector)
        found = runner.detect(pictures)
        assert device.allocated == weights
    assert (runner.note, detector.batch_size) == ("out of memory with 8 images at once -> 2", 2)
    for there, here in zip(found, expected, strict=True):
        assert isinstance(there, Regions) and np.allclose(there.features, here.features, atol=1e-3)


def test_whoever_stops_a_run_on_a_cpu_waits_for_one_image(folder: Path) -> None:
    assert small_detector(folder).window == 1
    with pretend_cuda():
        detector = small_detector(folder, device="cuda")
        assert detector.window >= 8 * detector.batch_size  # enough for images of one size to meet


def test_the_error_of_a_full_device_is_torchs_own(folder: Path, pictures: list[Image.Image]) -> None:
    with pretend_cuda(capacity=2**20) as device, pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        small_detector(folder, device="cuda", proposals=PROPOSALS).detect(pictures)
    assert device.peak <= 2**20
