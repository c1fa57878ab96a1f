"""Weights that came from elsewhere, into a fresh model; and what a phrase starts as (MVPTR 3.1.1, A.2.1).

Shape legend: V word pieces, P phrases, D size of a state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mvptr_data.errors import InputError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_model.configuration import ModelConfiguration
from mvptr_model.model import Mvptr
from mvptr_model.word_pieces import UNKNOWN, WordPieces

#: For a model that knows words alone.
NO_PHRASES = PhraseVocabulary.from_counts([], {})
#: Names that a message shows.
_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of a checkpoint `source`: parameters of ours that it has nothing for (`missing`: they are fresh), tensors of
    its own that nothing was made of (`unexpected`), and what else is good to know (`notes`)."""

    source: str
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report for people."""
        found = [f"from {self.source}", *self.notes]
        for what, names in (("fresh, for it has none", self.missing), ("not used", self.unexpected)):
            if names:
                found.append(f"{what}: {shortened(names)}")
        return found


def configured(
    settings: Mapping[str, Any], words: WordPieces, phrases: PhraseVocabulary, sizes: Mapping[str, int] | None = None
) -> ModelConfiguration:
    """The configuration of a model with these vocabularies: `preset` (by default "paper") and other fields in `settings`.

    `sizes` are those of a checkpoint; phrases are grounded at its last layer where it has not as many as the preset wants.
    Raises `InputError`.
    """
    changes = {name: value for name, value in settings.items() if name != "preset"}
    rows = {"word_rows": words.size, "phrase_rows": len(phrases)}
    for name, count in rows.items():
        if changes.get(name, count) != count:
            raise InputError(f"{name} is {changes[name]!r}, and the vocabulary has {count:,}", "Leave it out.")
    preset = settings.get("preset", "paper")
    known = dict(sizes or {})
    if known:
        known["wpg_layer"] = min(ModelConfiguration.preset(preset).wpg_layer, known["layers"])
    return ModelConfiguration.preset(preset, **{**known, **changes, **rows})


def fresh_model(configuration: ModelConfiguration, seed: int) -> Mvptr:
    """A model whose weights `seed` decides; torch's own generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Mvptr(configuration)


def fill(model: Mvptr, values: Mapping[str, Tensor], where: str) -> tuple[str, ...]:
    """Copy `values`, by the model's names, into its parameters; returns the names of those that stay as they are.

    Raises `InputError` naming `where` and everything that has another shape, or is not finite; nothing is copied then.
    """
    own = model.state_dict()
    wrong = [
        f"{name} is {list(value.shape)} where the model has {list(own[name].shape)}"
        for name, value in values.items()
        if value.shape != own[name].shape
    ]
    if wrong:
        raise InputError(
            f"{where} does not fit the model: {shortened(wrong, '; ')}", "Leave the model's sizes to the checkpoint."
        )
    if infinite := [name for name, value in values.items() if not bool(torch.isfinite(value).all())]:
        raise InputError(f"{where} has NaN or infinite numbers in {shortened(infinite)}", "Take an earlier checkpoint.")
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    return tuple(name for name in own if name not in values)


def phrase_rows(rows: Tensor, words: WordPieces, phrases: PhraseVocabulary) -> Tensor:
    """[P, D]: for each phrase the mean of what its word pieces have in `rows` [V, D]."""
    unknown = words.pieces.index(UNKNOWN)
    pieces = [words.encode(" ".join(phrase)).ids or [unknown] for phrase in phrases.phrases]
    if not pieces:
        return rows.new_zeros(0, rows.shape[1])
    ids = torch.tensor([number for one in pieces for number in one])
    starts = torch.tensor([0, *(len(one) for one in pieces[:-1])]).cumsum(0)
    return F.embedding_bag(ids, rows, starts, mode="mean")


def shortened(names: tuple[str, ...] | list[str], between: str = ", ") -> str:
    """The first few names, and how many there are besides."""
    more = f"{between}and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return between.join(names[:_SHOWN]) + more
