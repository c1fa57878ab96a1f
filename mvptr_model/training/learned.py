"""Which parameters a stage learns: those that one of its losses depends on.

The others are left alone, as BERT left them: an optimizer would let them decay without a gradient.
"""

from __future__ import annotations

from collections.abc import Iterable

from mvptr_model.configuration import LossName, ModelConfiguration

#: What only one loss looks at.
_HEADS: dict[LossName, tuple[str, ...]] = {
    "mcr_v": ("half_mlm.",),
    "mcr_s": ("phrase_mcr.",),
    "vsc": ("logit_scale", "bert.txt_proj.", "bert.vis_proj."),
    "itm": ("bert.pooler.", "cls.seq_relationship."),
    "mlm": ("cls.predictions.",),
    "wpg": (),
}
_JOINT: frozenset[LossName] = frozenset(("itm", "mlm", "wpg"))
_TEXT = ("bert.txt_encoder.",)
_IMAGE = ("bert.vis_encoder.", "bert.img_embedding.", "bert.LayerNorm.")


def learned_names(configuration: ModelConfiguration, stage: int, names: Iterable[str]) -> set[str]:
    """Those of the model's parameter `names` that stage 1 or 2 learns."""
    learns = configuration.learns(stage)
    merged = configuration.merged_attention
    prefixes = ["bert.embeddings."]
    for loss in learns:
        prefixes += _HEADS[loss]
    joint = merged or bool(learns & _JOINT)
    if joint:
        # Grounding looks no further than its own layer.
        to_the_end = learns & {"itm", "mlm"} or (merged and learns & {"mcr_v", "mcr_s"})
        last = configuration.joint_layers - 1 if to_the_end else configuration.grounding_layer
        prefixes += [f"bert.mul_encoder.layer.{number}." for number in range(last + 1)]
    if joint or learns & {"vsc", "mcr_s"}:
        prefixes += _TEXT
    if joint or learns & {"vsc", "mcr_v"}:
        prefixes += _IMAGE
    return {name for name in names if name.startswith(tuple(prefixes))}
