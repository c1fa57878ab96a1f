"""Captions: natural forms, all used, and claims that are complete and true of the things they name."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvptr_data.abstract_scenes import COLORS, KINDS, Relation, Scene, SceneCaption, Thing, generate_scene
from mvptr_data.abstract_scenes.captions import CAPTIONS_PER_SCENE
from mvptr_data.abstract_scenes.english import CLOTHES, NUMBER_WORDS, SETTINGS, SIZE_WORDS, WATER, WORDINGS, plural
from mvptr_data.abstract_scenes.mentions import Speaker
from mvptr_data.abstract_scenes.templates import TEMPLATES

scenes = st.builds(generate_scene, st.integers(0, 2**63), st.integers(0, 2**40))

PLACES = {setting.noun for settings in SETTINGS.values() for setting in settings} | {WATER.noun}
SIZE_OF_WORD = {word: size for size, word in SIZE_WORDS.items()}
HOLD_WORDS = {"hold", "have", "with"}
STANCES = {"stand", "sit", "fly", "float"}


def _relations_said(predicate: str) -> set[str]:
    """The relations that a phrase's predicate can mean."""
    if predicate in HOLD_WORDS:
        return {"hold"}
    return {
        relation
        for relation, wordings in WORDINGS.items()
        if any(predicate == wording or predicate.endswith(f" {wording}") for wording in wordings)
    }


def _check_attribute(scene: Scene, noun: str, attribute: str, things: tuple[int, ...]) -> None:
    if noun in PLACES:
        assert things == ()
        return
    assert things
    for thing in (scene.things[number] for number in things):
        assert noun in (thing.kind, CLOTHES.get(thing.kind))
        if attribute in COLORS:
            assert thing.color == attribute
            assert (noun == CLOTHES.get(thing.kind)) == (thing.kind in CLOTHES)
        elif attribute in SIZE_OF_WORD:
            assert thing.size == SIZE_OF_WORD[attribute]
        else:
            assert attribute in STANCES | {"couple"} | set(NUMBER_WORDS)
    if attribute == "couple" or attribute in NUMBER_WORDS:
        assert len(things) == (2 if attribute == "couple" else NUMBER_WORDS.index(attribute))
        assert len(things) > 1


def _check_relation(scene: Scene, subject: str, predicate: str, object_: str, things: tuple[int, ...]) -> None:
    assert subject != object_
    subjects = [number for number in things if scene.things[number].kind == subject]
    objects = [number for number in things if scene.things[number].kind == object_]
    if object_ in PLACES:
        assert tuple(subjects) == things != ()
        return
    if object_ in CLOTHES.values():
        assert predicate in ("wear", "in")
        assert all(CLOTHES[scene.things[number].kind] == object_ for number in things)
        return
    assert sorted(subjects + objects) == list(things)
    if predicate == "hold by":
        subjects, objects, predicate = objects, subjects, "hold"
    told = {(r.subject, r.predicate, r.object) for r in scene.relations}
    meant = _relations_said(predicate)
    assert subjects
    assert objects
    for one in subjects:
        assert any((one, relation, other) in told for relation in meant for other in objects)
    for other in objects:
        assert any((one, relation, other) in told for relation in meant for one in subjects)


@given(scenes)
@settings(max_examples=150)
def test_every_claim_is_true_of_the_things_it_names(scene: Scene) -> None:
    for caption in scene.captions:
        assert caption.phrases
        assert len({phrase.words for phrase in caption.phrases}) == len(caption.phrases)
        for phrase in caption.phrases:
            assert list(phrase.things) == sorted(set(phrase.things))
            if len(phrase.words) == 2:
                _check_attribute(scene, *phrase.words, phrase.things)
            else:
                _check_relation(scene, *phrase.words, phrase.things)


def _words(caption: SceneCaption) -> list[str]:
    return re.findall(r"[a-z-]+", caption.text.lower())


@given(scenes)
@settings(max_examples=150)
def test_every_word_that_claims_is_claimed(scene: Scene) -> None:
    """Colors, sizes, numbers and kinds of the text and of the phrases are the same, with as many things to each."""
    for caption in scene.captions:
        words = set(_words(caption))
        attributes = {phrase.words[1] for phrase in caption.phrases if len(phrase.words) == 2}
        vocabulary = {*COLORS, *SIZE_WORDS.values(), *NUMBER_WORDS, "couple"}
        # As adjectives of places these words are claims too, so no word is left over on either side.
        assert words & vocabulary == attributes & vocabulary
        kinds = {kind for kind in KINDS if kind in words or plural(kind) in words}
        named = {scene.things[number].kind for phrase in caption.phrases for number in phrase.things}
        assert named <= kinds
        for place in PLACES & words:
            assert any(place in phrase.words for phrase in caption.phrases)


@given(scenes)
@settings(max_examples=100)
def test_captions_are_sentences_of_their_own(scene: Scene) -> None:
    assert len(scene.captions) == CAPTIONS_PER_SCENE >= 5
    texts = [caption.text.rstrip(".").lower() for caption in scene.captions]
    assert len(set(texts)) == len(texts)
    for caption in scene.captions:
        assert caption.template in TEMPLATES
        assert re.fullmatch(r"[A-Z][a-z'-]*(,? [a-z'-]+)+\.?", caption.text), caption.text
        assert not re.search(r"\ba [aeiou]", caption.text.lower())
        assert not re.search(r"\bthere (is|are) the\b", caption.text.lower())


def test_every_template_is_used_and_most_captions_relate() -> None:
    captions = [caption for index in range(500) for caption in generate_scene(99, index).captions]
    used = Counter(caption.template for caption in captions)
    assert set(used) == set(TEMPLATES)
    assert min(used.values()) >= 4, used
    assert max(used.values()) < 0.2 * len(captions)
    relating = sum(any(len(phrase.words) == 3 for phrase in caption.phrases) for caption in captions)
    assert 0.6 < relating / len(captions) < 0.9
    assert 0.8 < sum(caption.text.endswith(".") for caption in captions) / len(captions) < 0.9
    said = {
        relation for c in captions for p in c.phrases if len(p.words) == 3 for relation in _relations_said(p.words[1])
    }
    assert said == {*WORDINGS, "hold"}


def _thing(kind: str, color: str, size: str) -> Thing:
    box = (0.0, 0.0, 1.0, 1.0)
    return Thing(kind=kind, color=color, size=size, box=box, visible=1.0, left=0, top=0, extent=1, flip=False)


def _relations(*told: tuple[int, str, int]) -> tuple[Relation, ...]:
    return tuple(Relation(subject=subject, predicate=predicate, object=other) for subject, predicate, other in told)


#: A picture in a meadow: two dogs under a table, a boy with a kite, a balloon over a tree, a car before a house.
PICTURE = Scene(
    seed=0,
    index=0,
    background="meadow",
    things=(
        _thing("table", "blue", "large"),
        _thing("dog", "black", "small"),
        _thing("dog", "white", "small"),
        _thing("boy", "red", "large"),
        _thing("kite", "yellow", "small"),
        _thing("tree", "green", "large"),
        _thing("balloon", "red", "medium"),
        _thing("house", "white", "large"),
        _thing("car", "green", "medium"),
    ),
    relations=_relations(
        (1, "under", 0),
        (2, "under", 0),
        (3, "hold", 4),
        (6, "above", 5),
        (5, "below", 6),
        (8, "in front of", 7),
        (7, "behind", 8),
    ),
    captions=(),
)

#: What the specification (attribute rules A1 to A7, relation rules R1 to R8) finds in sentences about it.
GOLD: dict[str, dict[str, set[tuple[str, ...]]]] = {
    "noun preposition noun": {
        "a small dog under the blue table": {("dog", "small"), ("dog", "under", "table"), ("table", "blue")},
        "a boy with a yellow kite": {("boy", "with", "kite"), ("kite", "yellow")},
    },
    "participle": {
        "a car parked in front of a house": {("car", "park in front of", "house")},
        "a balloon floating above a tree": {("balloon", "float above", "tree")},
    },
    "there is, related": {
        "there is a boy holding a kite": {("boy", "hold", "kite")},
        "there is a tree below a balloon": {("tree", "below", "balloon")},
    },
    "copula": {"the house is behind the car": {("house", "behind", "car")}},
    "verb": {
        "a boy in a red shirt is holding a kite": {("boy", "in", "shirt"), ("shirt", "red"), ("boy", "hold", "kite")},
        "the car is parked in front of a house": {("car", "park in front of", "house")},
        "a dog stands under a table that is blue": {("dog", "stand under", "table"), ("table", "blue")},
    },
    "relative clause": {
        "a boy who is holding a kite": {("boy", "hold", "kite")},
        "a dog that is under a table": {("dog", "under", "table")},
    },
    "relative clause, then adjective": {
        "the balloon that is above the tree is red": {("balloon", "above", "tree"), ("balloon", "red")}
    },
    "companions counted": {
        "two small dogs are standing under the table": {
            ("dog", "two"),
            ("dog", "small"),
            ("dog", "stand under", "table"),
        },
        "there are a couple of dogs under a table": {("dog", "couple"), ("dog", "under", "table")},
    },
    "companions conjoined": {
        "a black dog and a white dog are under a table": {
            ("dog", "black"),
            ("dog", "white"),
            ("dog", "under", "table"),
        }
    },
    "conjoined clauses": {
        "a green car is parked in front of a house, and a large green tree is below a red balloon": {
            ("car", "green"),
            ("car", "park in front of", "house"),
            ("tree", "large"),
            ("tree", "green"),
            ("tree", "below", "balloon"),
            ("balloon", "red"),
        },
        "a boy is holding a small kite while the green tree is below a red balloon": {
            ("boy", "hold", "kite"),
            ("kite", "small"),
            ("tree", "green"),
            ("tree", "below", "balloon"),
            ("balloon", "red"),
        },
    },
    "conjoined verbs": {
        "the boy is standing on the grass and holding a kite": {("boy", "stand on", "grass"), ("boy", "hold", "kite")}
    },
    "holder in place": {
        "a boy with a kite is standing in the meadow": {("boy", "with", "kite"), ("boy", "stand in", "meadow")},
        "the boy who has a kite is standing on the grass": {("boy", "have", "kite"), ("boy", "stand on", "grass")},
    },
    "passive": {"a kite is held by the boy": {("boy", "hold", "kite")}},
    "held by": {"a kite held by a boy": {("kite", "hold by", "boy")}},
    "object relative clause": {
        "the kite that a boy is holding is yellow": {("boy", "hold", "kite"), ("kite", "yellow")}
    },
    "possessive": {"the boy's kite is small": {("boy", "have", "kite"), ("kite", "small")}},
    "possessive pronoun": {
        "a boy is holding his yellow kite": {("boy", "hold", "kite"), ("boy", "have", "kite"), ("kite", "yellow")}
    },
    "fronted place": {
        "on the grass, a car is parked in front of a house": {
            ("car", "park on", "grass"),
            ("car", "park in front of", "house"),
        }
    },
    "predicate adjective": {"the small kite is yellow": {("kite", "small"), ("kite", "yellow")}},
    "predicate adjectives": {"the table is large and blue": {("table", "large"), ("table", "blue")}},
    "shared adjective": {"the tree and the car are green": {("tree", "green"), ("car", "green")}},
    "counted": {"two small dogs": {("dog", "two"), ("dog", "small")}},
    "conjoined nouns": {"there are two dogs and a green car": {("dog", "two"), ("car", "green")}},
    "there is": {"there is a boy wearing a red shirt": {("boy", "wear", "shirt"), ("shirt", "red")}},
    "in place": {
        "a car is parked on the green grass": {("car", "park on", "grass"), ("grass", "green")},
        "two dogs are in the meadow": {("dog", "two"), ("dog", "in", "meadow")},
    },
    "conjoined in place": {
        "the boy and two dogs are standing on the grass": {
            ("dog", "two"),
            ("boy", "stand on", "grass"),
            ("dog", "stand on", "grass"),
        }
    },
    "intransitive": {
        "the boy and two dogs are standing": {("dog", "two"), ("boy", "stand"), ("dog", "stand")},
        "a balloon is floating": {("balloon", "float")},
    },
}


@pytest.mark.parametrize("name", GOLD)
def test_claims_follow_the_specification(name: str) -> None:
    speaker = Speaker(PICTURE, np.random.Generator(np.random.Philox(1)))
    said: dict[str, set[tuple[str, ...]]] = {}
    for _ in range(100_000):
        if GOLD[name].keys() <= said.keys():
            break
        draft = TEMPLATES[name][0](speaker)
        if draft is not None:
            said[draft.text] = {phrase.words for phrase in draft.phrases}
    for text, phrases in GOLD[name].items():
        assert said.get(text) == phrases, text


def test_claims_say_which_things_they_are_about() -> None:
    speaker = Speaker(PICTURE, np.random.Generator(np.random.Philox(2)))
    for _ in range(2000):
        draft = TEMPLATES["companions counted"][0](speaker)
        assert draft is not None
        for phrase in draft.phrases:
            expected = (0,) if phrase.words[0] == "table" else (1, 2) if len(phrase.words) == 2 else (0, 1, 2)
            assert phrase.things == expected


def test_forms_that_a_scene_cannot_fill_say_nothing() -> None:
    speaker = Speaker(PICTURE, np.random.Generator(np.random.Philox(3)))
    assert TEMPLATES["on water"][0](speaker) is None
    assert TEMPLATES["counted, with adjective"][0](speaker) is None  # the dogs differ in color
