"""What a model is and what it learns from: sizes, ablations, and the decisions on which paper and released code differ.

configuration = ModelConfiguration.preset("paper", phrase_rows=len(vocabulary))
configuration = ModelConfiguration.preset("official")  # takes the authors' checkpoints
ModelConfiguration.from_json(configuration.to_json(), "model.json")
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from mvptr_data.errors import FormatVersionError, InputError
from mvptr_data.storage import canonical_json, parse_json

CONFIGURATION_VERSION = 1

#: Word pieces, phrases, regions, tags: the letters of the paper's table 4.
InputName = Literal["w", "c", "r", "t"]
LossName = Literal["mcr_v", "mcr_s", "vsc", "wpg", "itm", "mlm"]
INPUTS: tuple[InputName, ...] = get_args(InputName)
LOSSES: tuple[LossName, ...] = get_args(LossName)
#: What the first stage learns from (eq. 10); the second learns from all (eq. 11).
FIRST_STAGE_LOSSES: tuple[LossName, ...] = ("mcr_v", "mcr_s", "vsc")
#: Inputs without which a loss has nothing to look at.
_NEEDED: dict[LossName, InputName] = {"mcr_v": "t", "mcr_s": "c", "wpg": "c"}

#: Where the released code goes another way than the paper. Its table has 86,051 rows, 30,522 of them word pieces.
_OFFICIAL: dict[str, Any] = {
    "phrase_rows": 55_529,
    "region_layernorm": False,
    "tied_decoders": False,
    "losses": ("mcr_v", "vsc", "wpg", "itm", "mlm"),
    "match_concepts": False,
    "negatives": "local",
    "hardest_negatives": True,
    "wpg_layer": 6,
    "wpg_best_regions": 3,
}
PRESETS: dict[str, dict[str, Any]] = {"paper": {}, "official": _OFFICIAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfiguration:
    """The defaults are the preset "paper". Raises `InputError` for a value that cannot be used."""

    #: V, rows of the embedding table for word pieces, and F, those for phrases, which follow them.
    word_rows: int = 30_522
    phrase_rows: int = 54_950
    #: D, the size of a state, and how it is shared and widened within a layer.
    hidden_size: int = 768
    heads: int = 12
    feed_forward_size: int = 3072
    #: Layers of each of the three stacks; with `merged_attention` the one stack has twice as many.
    layers: int = 6
    #: Places that have a position embedding.
    positions: int = 512
    region_size: int = 2054
    region_layernorm: bool = True
    #: Dropout of hidden states and of attention weights.
    dropout: float = 0.1
    attention_dropout: float = 0.1

    #: Ablations (table 4): which inputs there are, and which losses, in either stage.
    inputs: tuple[InputName, ...] = INPUTS
    losses: tuple[LossName, ...] = LOSSES
    #: One stack over all inputs in place of two stages.
    merged_attention: bool = False

    #: Decoders share the rows of the embedding table.
    tied_decoders: bool = True
    #: Masked concepts are recovered in any order (eq. 1); False: each at its own place.
    match_concepts: bool = True
    #: Pairs of all ranks, or of one's own, are each other's negatives (eq. 4).
    negatives: Literal["global", "local"] = "global"
    #: ITM takes the most similar negative; False: draws from the distributions of eq. 4.
    hardest_negatives: bool = False
    #: The multi-modal layer, from 1, at whose output phrases are grounded.
    wpg_layer: int = 3
    #: A phrase's similarity is that of one of so many best regions, drawn; 1 is eq. 6's maximum.
    wpg_best_regions: int = 1
    #: Eq. 7's V' is taken from ITM's pairs, or drawn for each sentence and encoded up to `wpg_layer`.
    wpg_negatives: Literal["itm", "own"] = "itm"
    #: The temperature of eq. 4 at first. Its inverse stays at or below `max_similarity_scale`.
    temperature: float = 0.07
    max_similarity_scale: float = 100.0

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_choices()
        self._check_ablation()

    @classmethod
    def preset(cls, name: str, **changes: Any) -> ModelConfiguration:
        """The preset "paper" or "official", with `changes`. Raises `InputError`."""
        if name not in PRESETS:
            raise InputError(f"the preset is {name!r}", f"Choose one of: {', '.join(PRESETS)}.")
        return cls._of({**PRESETS[name], **changes})

    @classmethod
    def from_json(cls, data: bytes, where: str) -> ModelConfiguration:
        """What `to_json` wrote, from `where`. Raises `DamagedFileError`, `FormatVersionError` and `InputError`."""
        stored = parse_json(data, where, "Restore it from the run that wrote it.")
        version = stored.pop("version", None)
        if version != CONFIGURATION_VERSION:
            raise FormatVersionError(
                f"{where} has configuration version {version!r}; this release reads {CONFIGURATION_VERSION}",
                "Use the release that wrote it.",
            )
        return cls._of(stored)

    def to_json(self) -> bytes:
        """The one byte string of this configuration."""
        return canonical_json({"version": CONFIGURATION_VERSION, **asdict(self)})

    @property
    def table_rows(self) -> int:
        """V + F, the rows of the embedding table."""
        return self.word_rows + self.phrase_rows

    @property
    def joint_layers(self) -> int:
        """Layers of the stack that sees both modalities."""
        return 2 * self.layers if self.merged_attention else self.layers

    @property
    def grounding_layer(self) -> int:
        """The layer of that stack, from 0, at whose output phrases are grounded."""
        return self.joint_layers - self.layers + self.wpg_layer - 1

    def learns(self, stage: int) -> frozenset[LossName]:
        """The losses of stage 1 or 2. Raises `InputError` for another, or one that has nothing to learn from."""
        if stage not in (1, 2):
            raise InputError(f"the stage is {stage!r}", "Choose 1 or 2.")
        found = frozenset(self.losses).intersection(FIRST_STAGE_LOSSES if stage == 1 else LOSSES)
        if not found:
            raise InputError(f"stage {stage} has none of the losses {', '.join(self.losses)}", "Leave it out.")
        return found

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> ModelConfiguration:
        known = [field.name for field in fields(cls)]
        if unknown := sorted(values.keys() - set(known)):
            raise InputError(f"a model has no setting {', '.join(unknown)}", f"It has {', '.join(known)}.")
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**given)

    def _check_numbers(self) -> None:
        counts = ("word_rows", "hidden_size", "heads", "feed_forward_size", "layers", "positions", "region_size")
        for name, least in (*((name, 1) for name in (*counts, "wpg_layer", "wpg_best_regions")), ("phrase_rows", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise InputError(f"{name} is {value!r}", f"Give a whole number from {least}.")
        for name, lowest, limit in (
            ("dropout", 0.0, 1.0),
            ("attention_dropout", 0.0, 1.0),
            ("temperature", 1e-4, math.inf),
            ("max_similarity_scale", 1.0, math.inf),
        ):
            value = getattr(self, name)
            if type(value) not in (int, float) or not lowest <= value < limit:
                raise InputError(f"{name} is {value!r}", f"Give a number from {lowest} and below {limit}.")
        if self.hidden_size % self.heads:
            raise InputError(
                f"{self.heads} heads cannot share a hidden_size of {self.hidden_size}", "Give one that they divide."
            )
        if self.wpg_layer > self.layers:
            raise InputError(f"wpg_layer is {self.wpg_layer}", f"Choose one of the {self.layers} layers, from 1.")

    def _check_choices(self) -> None:
        for name in ("region_layernorm", "merged_attention", "tied_decoders", "match_concepts", "hardest_negatives"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is {getattr(self, name)!r}", "Give true or false.")
        for name, known in (("negatives", ("global", "local")), ("wpg_negatives", ("itm", "own"))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}", f"Choose one of: {', '.join(known)}.")

    def _check_ablation(self) -> None:
        for name, known in (("inputs", INPUTS), ("losses", LOSSES)):
            value = getattr(self, name)
            if not isinstance(value, tuple) or len(set(value)) != len(value) or not set(value) <= set(known):
                raise InputError(f"{name} is {value!r}", f"Give a list of some of {', '.join(known)}.")
        if not {"w", "r"} <= set(self.inputs):
            raise InputError(f"inputs is {self.inputs!r}", "Words and regions, w and r, are always there.")
        for loss, needed in _NEEDED.items():
            if loss in self.losses and needed not in self.inputs:
                raise InputError(
                    f"the loss {loss} has no input {needed} to learn from",
                    f"Leave {loss} out of losses, or add {needed}.",
                )
        if self.merged_attention and "vsc" in self.losses:
            raise InputError(
                "with merged_attention no image or text is encoded alone, which the loss vsc compares",
                "Leave vsc out of losses.",
            )
