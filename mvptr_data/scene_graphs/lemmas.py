"""Lemmas by rules and tables: plural nouns and inflected verbs are reduced, every other word stays as it is.

The tables are WordNet's, as spacy-lookups-data packs them and the bundled model carries them: irregular forms
(`lemma_exc`) and the known base forms (`lemma_index`). Which of several known bases a regular form has is decided by
spelling: riding doubles no consonant, so it comes from ride and not from rid.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from spacy.lookups import Lookups

from mvptr_data.scene_graphs.pipeline import BUNDLED_MODEL
from mvptr_data.scene_graphs.wordlists import read_words

#: Plural nouns that name one thing, or have no singular in captions.
KEPT_NOUNS = read_words("kept_nouns")

#: Forms that the tables lack, or send to a rarer word than captions mean.
NOUN_EXCEPTIONS = {
    "dice": "die",
    "axes": "axe",
    "bunches": "bunch",
    "buses": "bus",
    "crosses": "cross",
    "marches": "march",
    "masses": "mass",
    "lenses": "lens",
    "bikers": "biker",
    "hoodies": "hoodie",
    "selfies": "selfie",
}
VERB_EXCEPTIONS = {
    "'m": "be",
    "'re": "be",
    "'s": "be",
    "'ve": "have",
    "'d": "have",
    "lay": "lay",
    "skied": "ski",
    "bathing": "bathe",
    "installed": "install",
    "installing": "install",
    "taxiing": "taxi",
}

VOWELS = frozenset("aeiou")


class Lemmatizer:
    """Reduces nouns and verbs with the tables of a spaCy lemmatizer; every answer is remembered, up to a bound."""

    def __init__(self, tables: Lookups) -> None:
        exceptions, index = tables.get_table("lemma_exc"), tables.get_table("lemma_index")
        self.irregular_nouns: Mapping[str, list[str]] = exceptions["noun"]
        self.irregular_verbs: Mapping[str, list[str]] = exceptions["verb"]
        self.nouns: Mapping[str, object] = index["noun"]
        self.verbs: Mapping[str, object] = index["verb"]
        self.adjectives: Mapping[str, object] = index["adj"]
        self.adverbs: Mapping[str, object] = index["adv"]
        self.noun = lru_cache(maxsize=100_000)(self._noun)
        self.verb = lru_cache(maxsize=100_000)(self._verb)

    @classmethod
    def bundled(cls) -> Lemmatizer:
        """With the tables of the bundled model, whichever pipeline parses."""
        return cls(read_tables(BUNDLED_MODEL / "lemmatizer" / "lookups"))

    def _noun(self, word: str) -> str:
        """The singular of a plural noun in lower case (men -> man, glasses -> glass); people, pants, ... stay."""
        if word in KEPT_NOUNS:
            return word
        if word in NOUN_EXCEPTIONS:
            return NOUN_EXCEPTIONS[word]
        if "-" in word:
            head, hyphen, tail = word.rpartition("-")
            return head + hyphen + self.noun(tail) if tail else word
        if word in self.irregular_nouns:
            return self.irregular_nouns[word][0]
        return self._regular_noun(word)

    def _regular_noun(self, word: str) -> str:
        if not word.endswith("s") or word.endswith("ss") or len(word) < 3:
            return word[:-3] + "man" if word.endswith("men") and len(word) > 4 else word
        candidates = [word[:-1]]
        if word.endswith("ies"):
            candidates.append(word[:-3] + "y")
        if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
            candidates.append(word[:-2])
        if word.endswith("ves"):
            candidates += [word[:-3] + "f", word[:-3] + "fe"]
        known = next((candidate for candidate in candidates if candidate in self.nouns), None)
        if known is not None:
            return known
        if word in self.nouns or word.endswith(("us", "is")):
            return word
        return candidates[-1] if word.endswith(("ies", "ches", "shes", "sses", "xes")) else candidates[0]

    def _verb(self, word: str) -> str:
        """The base of an inflected verb in lower case (riding -> ride, sat -> sit)."""
        if word in VERB_EXCEPTIONS:
            return VERB_EXCEPTIONS[word]
        if "-" in word:
            head, hyphen, tail = word.rpartition("-")
            return head + hyphen + self.verb(tail) if tail else word
        if word in self.irregular_verbs:
            return self.irregular_verbs[word][0]
        if word.endswith("ied"):
            return self._first_verb(word[:-3] + "y", word[:-1])
        for ending in ("ing", "ed"):
            if word.endswith(ending) and any(letter in VOWELS or letter == "y" for letter in word[: -len(ending)]):
                base = self._base_of_stem(word[: -len(ending)])
                return word if word in self.verbs and base not in self.verbs else base
        if word.endswith("s") and not word.endswith("ss") and len(word) > 2:
            return self._base_of_third_person(word)
        return word

    def _first_verb(self, *candidates: str) -> str:
        """The first candidate that is a known verb, else the last."""
        return next((candidate for candidate in candidates if candidate in self.verbs), candidates[-1])

    def _base_of_stem(self, stem: str) -> str:
        """The base of a verb without its -ing or -ed."""
        if len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] not in VOWELS:
            # stopping, but falling: only after l, s, f and z is the double consonant the base's own more often than
            # not.
            return (
                self._first_verb(stem, stem[:-1])
                if stem[-1] in "lsfz"
                else self._first_verb(stem[:-1], stem, stem[:-1])
            )
        if needs_silent_e(stem):
            return self._first_verb(stem + "e", stem, stem + "e")
        return self._first_verb(stem, stem + "e", stem + "e" if stem[-1] in "cvsuz" else stem)

    def _base_of_third_person(self, word: str) -> str:
        candidates = [word[:-1]]
        if word.endswith("ies"):
            candidates.append(word[:-3] + "y")
        if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
            candidates.append(word[:-2])
        return self._first_verb(*candidates, candidates[0])


def needs_silent_e(stem: str) -> bool:
    """Whether a stem like rid (riding) must have lost an e.

    Its single consonant after a short vowel would have been doubled otherwise (ridding).
    """
    if len(stem) < 2 or stem[-1] in VOWELS or stem[-1] in "wxy" or stem[-2] not in VOWELS:
        return False
    syllables = sum(letter in VOWELS and (i == 0 or stem[i - 1] not in VOWELS) for i, letter in enumerate(stem))
    return syllables == 1 and (len(stem) == 2 or stem[-3] not in VOWELS or stem[-3:-1] == "ui")


def read_tables(directory: Path) -> Lookups:
    """The lemma tables under a saved spaCy lemmatizer."""
    return Lookups().from_disk(directory)
