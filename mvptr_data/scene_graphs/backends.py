"""Backends by name: ways from a parsed caption to what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from mvptr_data.errors import InputError
from mvptr_data.scene_graphs.facts import Findings, Profile
from mvptr_data.scene_graphs.lemmas import Lemmatizer
from mvptr_data.scene_graphs.rules import RULES_VERSION, find_facts
from mvptr_data.scene_graphs.sng import SngBackend
from mvptr_data.scene_graphs.tokens import ParsedCaption

if TYPE_CHECKING:
    from spacy.tokens import Doc


class Backend(Protocol):
    """Finds the attributes and relations of captions."""

    def configuration(self) -> dict[str, object]:
        """Its name and all versions that its findings depend on, fit for JSON."""

    def find(self, caption: ParsedCaption, docs: Sequence[Doc]) -> Findings:
        """What one caption says; `docs` are its sentences, whose tokens `caption` holds in the same order.

        They are freed after the call.
        """


class RulesBackend:
    """The rules of this package."""

    def __init__(self, lemmas: Lemmatizer, profile: Profile) -> None:
        self._lemmas = lemmas
        self._profile = profile

    def configuration(self) -> dict[str, object]:
        """See `Backend`."""
        return {"backend": "rules", "rules_version": RULES_VERSION}

    def find(self, caption: ParsedCaption, docs: Sequence[Doc]) -> Findings:
        """See `Backend`."""
        return find_facts(caption, self._lemmas, self._profile)


BACKENDS: dict[str, Callable[[Lemmatizer, Profile], Backend]] = {"rules": RulesBackend, "sng": SngBackend}


def load_backend(name: str, lemmas: Lemmatizer, profile: Profile) -> Backend:
    """The backend of that name; `InputError` naming the known ones where there is none."""
    if name not in BACKENDS:
        raise InputError(f"there is no caption parser {name!r}", f"Use one of: {', '.join(BACKENDS)}.")
    return BACKENDS[name](lemmas, profile)
