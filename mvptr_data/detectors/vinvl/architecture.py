"""The sizes of the network. The released weights have those of `X152_C4`; tests run the same code with small ones."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A row of bottlenecks; all but the first stage of the network halve the map in their first block."""

    blocks: int
    #: Channels of the 1x1 and the grouped 3x3 convolution inside a block.
    width: int
    #: Channels that a block gives.
    outputs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Everything that decides the shapes of the weights. The defaults are VinVL's (Zhang et al. 2021, X152-C4)."""

    stem: int = 64
    #: The stages at strides 4, 8 and 16; the last one's map is C4.
    trunk: tuple[Stage, Stage, Stage] = field(
        default=(
            Stage(blocks=3, width=256, outputs=256),
            Stage(blocks=8, width=512, outputs=512),
            Stage(blocks=36, width=1024, outputs=1024),
        )
    )
    #: The stage that looks at each region.
    res5: Stage = field(default=Stage(blocks=3, width=2048, outputs=2048))
    #: Groups of every 3x3 convolution.
    groups: int = 32
    #: Anchors of a map cell.
    anchors: int = 15
    #: Classes and attributes, the background and "no attribute" not counted.
    classes: int = 1594
    attributes: int = 524
    #: Width of a label's embedding and of the attribute head's hidden layer.
    label_width: int = 256
    attribute_width: int = 512


X152_C4 = Architecture()
