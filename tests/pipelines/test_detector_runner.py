from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mvptr_data.detectors import Regions
from mvptr_data.errors import InputError, SampleFault
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
    runner.detect(pictures([1] * runner.window))
    assert detector.seen == [runner.window]


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
