"""How an order is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from mvptr_data.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSettings:
    """What decides the order of a data set.

    `global_batch` slots over all ranks, a multiple of `canonical_streams` (the number of nodes, or a multiple of it).
    `block_shards`: shards of a stream that are shuffled together and open at a time. `captions`: "one" of each image in a
    pass, or "every" one. `tail`: samples that fill no whole batch are dropped ("drop"; others in each pass), or the last batch
    is padded with empty slots ("pad"). `weights`: how many samples each data set gives, in proportion; None takes every
    sample of all of them once in an epoch.
    """

    global_batch: int
    seed: int = 0
    canonical_streams: int = 8
    block_shards: int = 16
    captions: Literal["one", "every"] = "one"
    distinct_images: bool = True
    tail: Literal["drop", "pad"] = "drop"
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("global_batch", "canonical_streams", "block_shards"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"{name} is {value}", "Give a whole number from 1.")
        if self.global_batch % self.canonical_streams:
            raise InputError(
                f"a global batch of {self.global_batch} cannot take equal parts of {self.canonical_streams} streams",
                "Choose canonical_streams so that it divides global_batch.",
            )
        for name, known in (("captions", ("one", "every")), ("tail", ("drop", "pad"))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}", f"Choose one of {', '.join(known)}.")

    def reading(self) -> dict[str, Any]:
        """The settings that the order digest covers: all but those that a state names itself."""
        named = ("seed", "global_batch", "canonical_streams")
        return {name: value for name, value in asdict(self).items() if name not in named}
