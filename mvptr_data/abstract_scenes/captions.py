"""A scene's captions: forms drawn at random, said, and written down with exactly what each claims."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import numpy as np

from mvptr_data.abstract_scenes.mentions import Speaker, claim
from mvptr_data.abstract_scenes.randomness import Stream, generator
from mvptr_data.abstract_scenes.records import GroundedPhrase, Scene, SceneCaption
from mvptr_data.abstract_scenes.templates import RELATIONAL, TEMPLATES, Draft, Template

#: Captions a scene gets, as many as a COCO image.
CAPTIONS_PER_SCENE = 5

#: The first so many are forms that relate things.
_RELATIONAL_FIRST = 2

_PERIOD = 0.85  # share of captions that end with one


def _united(phrases: Sequence[GroundedPhrase]) -> tuple[GroundedPhrase, ...]:
    """The phrases in order of first mention, equal words once, speaking of all things they were said of."""
    things: dict[tuple[str, ...], list[int]] = {}
    for phrase in phrases:
        things.setdefault(phrase.words, []).extend(phrase.things)
    return tuple(claim(*words, things=numbers) for words, numbers in things.items())


def _draft(
    speaker: Speaker, forms: Mapping[str, tuple[Template, float]], taken: Container[str]
) -> tuple[str, Draft] | None:
    """A new sentence in one of the forms, tried in a random order that favors those with larger shares; None where none of
    them has anything new to claim."""
    shares = np.asarray([share for _, share in forms.values()])
    names = list(forms)
    for choice in speaker.random.choice(len(names), len(names), replace=False, p=shares / shares.sum()):
        draft = forms[names[choice]][0](speaker)
        if draft is not None and draft.phrases and draft.text not in taken:
            return names[choice], draft
    return None


def write_captions(scene: Scene) -> tuple[SceneCaption, ...]:
    """The captions of a scene, all different. Pure; `scene.captions` is not read."""
    random = generator(scene.seed, scene.index, Stream.CAPTIONS)
    speaker = Speaker(scene, random)
    captions: dict[str, SceneCaption] = {}
    while len(captions) < CAPTIONS_PER_SCENE:
        said = _draft(speaker, RELATIONAL, captions) if len(captions) < _RELATIONAL_FIRST else None
        said = said or _draft(speaker, TEMPLATES, captions)
        if said is None:
            continue  # every form is random in its words: the next try can be new
        name, draft = said
        text = draft.text[0].upper() + draft.text[1:] + ("." if random.random() < _PERIOD else "")
        captions[draft.text] = SceneCaption(text=text, template=name, phrases=_united(draft.phrases))
    return tuple(captions.values())
