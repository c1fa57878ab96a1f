"""The options of the detectron2 adapter."""

from __future__ import annotations

from dataclasses import dataclass

from mvptr_data.detectors.selection import check_selection
from mvptr_data.errors import InputError

PRECISIONS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Detectron2Options:
    """What changes the output, model and names aside. Raises `InputError` for a value that cannot be used."""

    #: What convolutions and matrices compute in; boxes, probabilities and suppression stay in fp32.
    precision: str = "fp32"
    #: Regions whose class has at least this probability are kept.
    score_threshold: float = 0.2
    #: The best regions are kept up to this number even below the threshold.
    min_regions: int = 10
    #: No more regions than this are kept.
    max_regions: int = 100
    #: Of two boxes of one class that overlap more than this, the better stays. None: the config's ROI_HEADS.NMS_THRESH_TEST.
    nms_iou: float | None = None
    #: Attributes with at least this probability are named (bottom-up attention's demonstration uses 0.1).
    attribute_threshold: float = 0.1

    def __post_init__(self) -> None:
        for name in ("score_threshold", "attribute_threshold", "nms_iou"):
            value = getattr(self, name)
            if name == "nms_iou" and value is None:
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 <= value <= 1.0:
                raise InputError(f"{name} is {value!r}", "Give a number from 0 to 1.")
        for name in ("min_regions", "max_regions"):
            if type(getattr(self, name)) is not int:
                raise InputError(f"{name} is {getattr(self, name)!r}", "Give a whole number.")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}", f"Choose one of: {', '.join(PRECISIONS)}.")
        check_selection(threshold=self.score_threshold, minimum=self.min_regions, maximum=self.max_regions)
