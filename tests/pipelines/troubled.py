"""A detector in trouble, for tests of what happens then: copied into a folder of the test's and named `troubled:make`.

It is the compact detector, except that pictures of certain widths kill the process or need more memory than there is.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

import torch
from PIL import Image

from mvptr_data.detectors import Regions, load_detector

DEADLY, HUGE = 250, 251


class Troubled:
    name = "troubled"

    def __init__(self, most_images: int = 1000) -> None:
        self._inner = load_detector("compact")
        self._most_images = most_images

    def configuration(self) -> dict[str, object]:
        return {"name": self.name, "inner": self._inner.configuration()}

    def detect(self, images: Sequence[Image.Image]) -> list[Regions]:
        if any(image.width == DEADLY for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        if len(images) > self._most_images or any(image.width == HUGE for image in images):
            raise torch.OutOfMemoryError(f"CUDA out of memory with {len(images)} images")
        return self._inner.detect(images)


def make(most_images: int = 1000) -> Troubled:
    return Troubled(most_images)
