"""Predicates in words: every way to say that a thing of some kind stands in some relation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from mvptr_data.abstract_scenes.english import WORDINGS, verbs


@dataclass(frozen=True, slots=True, kw_only=True)
class Saying:
    """One predicate. `lemma` is its form in a phrase; `singular` and `plural` are its finite forms ("is next to"), or None
    where it has none; `reduced` follows a noun directly ("sitting under", "next to"), or is None. `verbal` tells those
    with a verb of their own from those with a preposition alone."""

    lemma: str
    singular: str | None
    plural: str | None
    reduced: str | None
    verbal: bool


_HOLDING = (
    Saying(lemma="hold", singular="is holding", plural="are holding", reduced="holding", verbal=True),
    Saying(lemma="hold", singular="holds", plural="hold", reduced=None, verbal=True),
    Saying(lemma="have", singular="has", plural="have", reduced=None, verbal=True),
    Saying(lemma="with", singular=None, plural=None, reduced="with", verbal=False),
)


@lru_cache(maxsize=2048)
def sayings(kind: str, relation: str, background: str) -> tuple[Saying, ...]:
    """Every predicate that says `relation` of a thing of that kind in front of that background."""
    if relation == "hold":
        return _HOLDING
    found = []
    for preposition in WORDINGS[relation]:
        found.append(
            Saying(
                lemma=preposition,
                singular=f"is {preposition}",
                plural=f"are {preposition}",
                reduced=preposition,
                verbal=False,
            )
        )
        for verb in verbs(kind, relation, background):
            found.append(
                Saying(
                    lemma=f"{verb.lemma} {preposition}",
                    singular=f"is {verb.participle} {preposition}",
                    plural=f"are {verb.participle} {preposition}",
                    reduced=f"{verb.participle} {preposition}",
                    verbal=True,
                )
            )
            if verb.present is not None:
                found.append(
                    Saying(
                        lemma=f"{verb.lemma} {preposition}",
                        singular=f"{verb.present} {preposition}",
                        plural=f"{verb.lemma} {preposition}",
                        reduced=None,
                        verbal=True,
                    )
                )
    return tuple(found)
