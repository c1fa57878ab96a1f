from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mvptr_data.detectors import Regions
from mvptr_data.errors import IncompleteError, InputError, SampleFault
from pipelines.detector_runner import DetectorRunner, is_out_of_memory


class Counting:
    """One region an image, labelled with its width; images of width 7 break it, and more than `most` at once do not fit."""

    name = "counting"

    def __init__(self, most: int) -> None:
        self.most = most
        self.seen: list[int] = []

    def configuration(self) -> dict[str, object]:
        return {}

    def detect(self, images: Sequence[Image.Image]) -> list[Regions]:
        self.seen.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if any(image.width == 7 for image in images):
            raise RuntimeError("seven")
        return [self._regions(image.width) for image in images]

    @staticmethod
    def _regions(label: int) -> Regions:
        return Regions(
            boxes=np.array([[0, 0, 1, 1]], np.float32),
            features=np.zeros((1, 2048), np.float32),
            scores=np.ones(1, np.float32),
            labels=np.array([label], np.int32),
            tags=("x",),
            attributes=((),),
            attribute_scores=((),),
        )


class Batching(Counting):
    """Has a batch size of its own, which is what does not fit."""

    def __init__(self, batch_size: int, most: int) -> None:
        super().__init__(10**6)
        self.batch_size, self.fits = batch_size, most

    def detect(self, images: Sequence[Image.Image]) -> list[Regions]:
        if self.batch_size > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().detect(images)


def pictures(widths: Sequence[int]) -> list[Image.Image]:
    return [Image.new("RGB", (width, 3)) for width in widths]


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 5))
def test_every_image_gets_its_own_outcome_in_order(widths: list[int], most: int) -> None:
    runner = DetectorRunner(Counting(most))
    found = runner.detect(pictures(widths))
    labels = [7 if isinstance(one, SampleFault) else int(one.labels[0]) for one in found]
    assert labels == widths
    assert {one.fault_class for one in found if isinstance(one, SampleFault)} <= {"detector_error"}
    assert (runner.note != "") == (len(widths) > most)


def test_what_fitted_is_remembered() -> None:
    detector = Counting(most=3)
    runner = DetectorRunner(detector)
    runner.detect(pictures([1] * 16))
    assert runner.window <= 3 and runner.note.startswith("out of memory with 16 images at once -> ")
    detector.seen.clear()
    runner.detect(pictures([1] * 16))
    assert max(detector.seen) <= 3 and sum(detector.seen) == 16


def test_a_detector_that_batches_by_itself_gets_a_smaller_batch() -> None:
    detector = Batching(batch_size=16, most=4)
    runner = DetectorRunner(detector)
    assert len(runner.detect(pictures([1] * 20))) == 20
    assert detector.batch_size == 4 and runner.note == "out of memory with 16 images at once -> 4"
    assert runner.window == 16


def test_an_image_too_large_for_memory_alone_is_a_fault() -> None:
    [found] = DetectorRunner(Counting(most=0)).detect(pictures([5]))
    assert isinstance(found, SampleFault) and found.fault_class == "out_of_memory"


def test_a_detector_that_miscounts_ends_the_run() -> None:
    class Miscounting(Counting):
        def detect(self, images: Sequence[Image.Image]) -> list[Regions]:
            return super().detect(images)[1:]

    with pytest.raises(InputError, match="2 results for 3 images"):
        DetectorRunner(Miscounting(10)).detect(pictures([1, 2, 3]))


def test_real_shortages_are_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as shortage:
        torch.empty(1 << 50)
    assert is_out_of_memory(shortage.value) and is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
    ids=str,
)
def test_every_way_to_say_that_memory_is_short_halves_the_batch(error: RuntimeError) -> None:
    class Short(Batching):
        def detect(self, images: Sequence[Image.Image]) -> list[Regions]:
            if self.batch_size > self.fits:
                raise error
            return super().detect(images)

    runner = DetectorRunner(Short(batch_size=8, most=2))
    assert all(isinstance(one, Regions) for one in runner.detect(pictures([1] * 5)))
    assert runner.note == "out of memory with 8 images at once -> 2"


def test_one_image_too_large_for_memory_spoils_nothing_for_the_others() -> None:
    class Heavy(Batching):
        def detect(self, images: Sequence[Image.Image]) -> list[Regions]:
            if any(image.width == 9 for image in images):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().detect(images)

    detector = Heavy(batch_size=16, most=16)
    runner = DetectorRunner(detector)
    found = runner.detect(pictures([1, 9, 1, 1]))
    assert [isinstance(one, SampleFault) for one in found] == [False, True, False, False]
    assert (detector.batch_size, runner.window, runner.note) == (16, 16, "")


def test_a_smaller_try_finds_the_memory_of_the_failed_one_free() -> None:
    """What the failed call had allocated dies with its frames, which its traceback holds."""
    alive: list[weakref.ref[np.ndarray]] = []
    still: list[int] = []

    class Hoarding(Counting):
        def detect(self, images: Sequence[Image.Image]) -> list[Regions]:
            still.append(sum(reference() is not None for reference in alive))
            activations = np.zeros(1000)
            alive.append(weakref.ref(activations))
            return super().detect(images)

    DetectorRunner(Hoarding(most=1)).detect(pictures([1] * 8))
    assert len(still) > 8 and set(still) == {0}


def test_a_lost_device_ends_the_run_and_fails_no_image() -> None:
    class Lost(Counting):
        def detect(self, images: Sequence[Image.Image]) -> list[Regions]:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(IncompleteError, match="the device cannot be used any more"):
        DetectorRunner(Lost(10)).detect(pictures([1, 2]))
