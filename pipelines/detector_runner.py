"""A detector at work in one process: made once, fed in windows, and kept going.

An image that breaks the detector is found by trying each alone; a window that does not fit into memory is halved, and what
fitted is remembered, so that a process pays for finding out once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from PIL import Image

from mvptr_data.detectors import Detector, Regions, load_detector
from mvptr_data.detectors.own import check_regions
from mvptr_data.errors import IncompleteError, MvptrError, SampleFault
from pipelines.cluster import once_per_process

#: Images handed to a detector at once that does not say how many it likes.
WINDOW = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorChoice:
    """A detector by name and options; hashable, so that each process makes it once."""

    name: str = "compact"
    options: tuple[tuple[str, Any], ...] = ()

    def load(self, threads: int) -> DetectorRunner:
        """Raises `InputError` (unknown name or option, unusable value), `MissingDependencyError`, `DamagedFileError`."""
        detector = load_detector(self.name, **dict(self.options))
        compute_with(threads)
        return DetectorRunner(detector)


def detector_runner(choice: DetectorChoice, threads: int) -> DetectorRunner:
    """The runner of this process for `choice`; loaded at the first call."""
    return once_per_process(DetectorChoice.load, choice, threads)


def compute_with(threads: int) -> None:
    """Let torch compute with so many threads on behalf of the calling thread, to which alone its setting belongs."""
    with contextlib.suppress(ImportError):  # a detector of the user's own may do without torch
        import torch

        torch.set_num_threads(threads)


class DetectorRunner:
    """Runs one detector. `note` says what was done about memory, for the receipt; empty where nothing was."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.window = max(1, int(getattr(detector, "window", WINDOW)))
        self.note = ""
        self._prepare = getattr(detector, "prepare", None)

    def prepare(self, image: Image.Image) -> Any:
        """What the detector does to one image ahead of detection; safe in any thread."""
        return image if self._prepare is None else self._prepare(image)

    def detect(self, images: Sequence[Any]) -> list[Regions | SampleFault]:
        """The regions of each image (as `prepare` gave it), or the fault that it alone caused.

        Raises `MvptrError` for what no other image can mend: a detector that miscounts, a device that is lost.
        """
        before = self.window, getattr(self.detector, "batch_size", None), self.note
        found: list[Regions | SampleFault] = []
        while len(found) < len(images):
            found += self._detect_some(images[len(found) : len(found) + self.window])
        if any(isinstance(one, SampleFault) and one.fault_class == "out_of_memory" for one in found):
            self._restore(*before)  # it was that image, not the others
        return found

    def _detect_some(self, images: Sequence[Any]) -> list[Regions | SampleFault]:
        try:
            return [*check_regions(self.detector, len(images), self.detector.detect(images))]
        except MvptrError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a detector of anyone's may raise
            lost, short, reason = is_device_lost(error), is_out_of_memory(error), reason_of(error)
        # From here on nothing holds the error, whose traceback holds what the failed call had allocated.
        if lost:
            _give_up_device(reason)
        if short:
            return self._in_less_memory(images, reason)
        if len(images) == 1:
            return [SampleFault("detector_error", reason)]
        return [self._detect_some([image])[0] for image in images]

    def _in_less_memory(self, images: Sequence[Any], reason: str) -> list[Regions | SampleFault]:
        """Try again with half the batch: the detector's own where it has one, else half the images."""
        release_memory()
        if len(images) == 1:
            return [SampleFault("out_of_memory", reason)]
        batch = getattr(self.detector, "batch_size", None)
        if isinstance(batch, int) and batch > 1:
            self.detector.batch_size = batch // 2  # type: ignore[attr-defined]
            self._note(batch, batch // 2)
            return self._detect_some(images)
        half = (len(images) + 1) // 2
        self.window = min(self.window, half)
        self._note(len(images), half)
        return [*self._detect_some(images[:half]), *self._detect_some(images[half:])]

    def _note(self, tried: int, taken: int) -> None:
        first = self.note.partition(" -> ")[0] or f"out of memory with {tried} images at once"
        self.note = f"{first} -> {taken}"

    def _restore(self, window: int, batch: int | None, note: str) -> None:
        self.window, self.note = window, note
        if batch is not None:
            self.detector.batch_size = batch  # type: ignore[attr-defined]


#: How else torch says it: its allocator on the host; CUDA itself, for pinned memory and modules; cuBLAS; cuDNN, which may also
#: find no engine at all when its workspace does not fit.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "unable to find an engine to execute this computation",
)


def is_device_lost(error: BaseException) -> bool:
    """Whether an error says that this process can use its device no more: every later call would fail, whatever the image."""
    lost = type(error).__name__ == "AcceleratorError" or "CUDA error:" in str(error)
    return isinstance(error, RuntimeError) and lost and not is_out_of_memory(error)


def _give_up_device(reason: str) -> NoReturn:
    """End a worker, as a crash would: it is replaced, and the image that does this each time is found. Else end the run."""
    if multiprocessing.parent_process() is not None:
        os._exit(70)
    raise IncompleteError(
        f"the device cannot be used any more ({reason})", "Run the same command again; what is finished is kept."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, the device's or the machine's, did not suffice."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch.OutOfMemoryError
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _OUT_OF_MEMORY)


def release_memory() -> None:
    """Give back what torch keeps of the device's memory, so that the next, smaller try finds it."""
    try:
        import torch
    except ImportError:
        return
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def reason_of(error: BaseException) -> str:
    """An error in one line, for a fault's message."""
    text = str(error)
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"
