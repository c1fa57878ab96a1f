"""The options of the VinVL detector."""

from __future__ import annotations

from dataclasses import dataclass

from mvptr_data.detectors.selection import check_selection
from mvptr_data.detectors.vinvl.postprocess import RULES
from mvptr_data.errors import InputError

PRECISIONS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class VinvlOptions:
    """What changes the detector's output, weights and label map aside. Raises `InputError` for a value that cannot be used."""

    #: "per_class": suppression within each class, as the reference's instructions for extraction say. "class_agnostic":
    #: one for all classes, the paper's fast mode. Which one made the released features is disputed.
    postprocess: str = "per_class"
    #: What the convolutions compute in: "fp32", "fp16" or "bf16".
    precision: str = "fp32"
    #: The reference's own arithmetic, operation for operation; fp32 only, and its default. False folds normalization into the
    #: convolutions and reorders some: faster, and equal up to roundings.
    exact: bool | None = None
    #: Regions whose class has at least this probability are kept.
    score_threshold: float = 0.2
    #: The best regions are kept up to this number even below the threshold.
    min_regions: int = 10
    #: No more regions than this are kept.
    max_regions: int = 100
    #: Boxes of an image that the second stage looks at.
    proposals: int = 300

    def __post_init__(self) -> None:
        for name, kinds, called in (
            ("score_threshold", (int, float), "a number"),
            *((name, (int,), "a whole number") for name in ("min_regions", "max_regions", "proposals")),
        ):
            value = getattr(self, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise InputError(f"{name} is {value!r}", f"Give {called}.")
        for name, known in (("postprocess", tuple(RULES)), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}", f"Choose one of: {', '.join(known)}.")
        if self.exact is None:
            object.__setattr__(self, "exact", self.precision == "fp32")
        if not isinstance(self.exact, bool) or (self.exact and self.precision != "fp32"):
            raise InputError(
                f"exact is {self.exact!r} and precision {self.precision!r}",
                "Only fp32 can be exact; give true or false, or leave it out.",
            )
        if self.proposals < 1:
            raise InputError(f"proposals is {self.proposals}", "The second stage needs at least one box an image.")
        check_selection(threshold=self.score_threshold, minimum=self.min_regions, maximum=self.max_regions)
