"""What the detector can say: the kinds, colors and sizes it was trained on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Class names in the order of the network's outputs. Kind i has label i + 1; label 0 is the background."""

    kinds: tuple[str, ...]
    colors: tuple[str, ...]
    sizes: tuple[str, ...]
