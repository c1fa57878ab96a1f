"""A scene graph said as FACTUAL's annotators would say it, where they and the phrase specification differ by convention.

| convention | specification | FACTUAL |
|---|---|---|
| collections | (group, of, people), (group, stand on, street) | (people, group), (people, stand on, street) |
| places on things | (car, park on, side), (side, of, road) | (car, park on side of, road) |
| containers | (plate, of, food), (jar, full of, sand) | (plate, have, food), (jar, have, sand) |
| parts | (leg, of, man) | (man, have, leg) |
| agents, covers | (bridge, surround by, tree), (hill, cover in, snow) | (tree, surround, bridge), (snow, cover, hill) |
| clothes | (man, in, shirt), (man, dress in, suit) | (man, wear, shirt), (man, wear, suit) |
| owners | (man, have, hand) of "his hand" | not said |
| vague numbers | (bird, several), (people, couple) | not said |
| words | guy, lie on, beneath, in between | person, lay on, under, between |

The graph's own words decide, never the gold graph it will be compared with. What FACTUAL does was counted on its train
split; where its annotators are of two minds, the more frequent way is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mvptr_data.scene_graphs.arguments import PEOPLE, PLURAL_PRONOUNS, SINGULAR_PRONOUNS
from mvptr_data.scene_graphs.attachments import CLOTHES
from mvptr_data.scene_graphs.graph import SceneAttribute, SceneGraph, SceneRelation
from mvptr_data.scene_graphs.wordlists import read_words

#: Nouns for many or for a part: what is said of them is said of what they are of.
COLLECTIONS = read_words("collections")
#: Of these, those that stay as attributes.
KEPT_COLLECTIONS = frozenset({"group", "part", "patch", "piece", "pile", "portion", "slice"})
#: Places on a thing, which become part of the predicate before their "of".
PLACES = read_words("places_on_things")
#: Modifiers of a place that stay in the predicate (on the left side of).
SIDES = frozenset({"left", "right"})
#: What has what it is "of" in it.
CONTAINERS = read_words("containers")
#: Attributes that FACTUAL leaves out.
VAGUE_NUMBERS = frozenset(
    {"bunch", "couple", "few", "lot", "many", "multiple", "number", "numerous", "other", "pair", "several", "various"}
)
#: Participles whose "with" or "in" names what does it.
COVERING = frozenset({"cover", "line", "surround"})

OBJECT_WORDS = {"guy": "person", "someone": "person"}
ATTRIBUTE_WORDS = {"wood": "wooden", "blond": "blonde"}
#: Parts of predicates, the longer ones first.
PREDICATE_WORDS = {
    "at top of": "on top of",
    "in between": "between",
    "in middle of": "on middle of",
    "inside of": "inside",
    "outside of": "outside",
    "on front of": "in front of",
    "atop": "on top of",
    "beneath": "under",
    "underneath": "under",
    "lie": "lay",
    "seat": "sit",
}


def factual_form(graph: SceneGraph) -> SceneGraph:
    """All conventions applied, in turn. Objects that only they made superfluous are left out."""
    graph = join_places(promote_collected(graph))
    return replace(
        graph,
        objects=tuple(replace(thing, lemma=OBJECT_WORDS.get(thing.lemma, thing.lemma)) for thing in graph.objects),
        attributes=tuple(
            replace(attribute, word=ATTRIBUTE_WORDS.get(attribute.word, attribute.word))
            for attribute in graph.attributes
            if not is_left_out(graph, attribute)
        ),
        relations=tuple(
            reword(turn(graph, relation)) for relation in graph.relations if not is_of_pronoun(graph, relation)
        ),
    )


def promote_collected(graph: SceneGraph) -> SceneGraph:
    """What is said of the group in "a group of people" is said of the people, who are (people, group)."""
    members = {
        relation.subject: relation
        for relation in graph.relations
        if relation.predicate == "of" and graph.objects[relation.subject].lemma in COLLECTIONS
    }
    if not members:
        return graph

    def member(index: int) -> int:
        seen = {index}
        while index in members and members[index].object not in seen:
            index = members[index].object
            seen.add(index)
        return index

    attributes = [replace(attribute, of=member(attribute.of)) for attribute in graph.attributes]
    attributes += [
        SceneAttribute(of=member(group), word=graph.objects[group].lemma, span=graph.objects[group].span)
        for group in members
        if member(group) != group and graph.objects[group].lemma in KEPT_COLLECTIONS
    ]
    relations = [
        replace(relation, subject=member(relation.subject), object=member(relation.object))
        for relation in graph.relations
        if relation is not members.get(relation.subject)
    ]
    return without(graph, members, attributes, relations)


def join_places(graph: SceneGraph) -> SceneGraph:
    """(car, park on, side), (side, of, road) -> (car, park on side of, road)."""
    wholes = {
        relation.subject: relation.object
        for relation in graph.relations
        if relation.predicate == "of" and graph.objects[relation.subject].lemma in PLACES
    }
    held = {relation.object for relation in graph.relations if relation.object in wholes}
    joined: list[SceneRelation] = []
    for relation in graph.relations:
        if relation.subject in held and relation.predicate == "of":
            continue
        if relation.object in held:
            sides = [a.word for a in graph.attributes if a.of == relation.object and a.word in SIDES]
            words = [relation.predicate, *sides, graph.objects[relation.object].lemma, "of"]
            relation = replace(relation, predicate=" ".join(words), object=wholes[relation.object])
        joined.append(relation)
    return without(graph, held, graph.attributes, joined) if held else graph


def turn(graph: SceneGraph, relation: SceneRelation) -> SceneRelation:
    """Parts, containers, agents, covers and clothes."""
    predicate = relation.predicate
    holder, held = graph.objects[relation.subject].lemma, graph.objects[relation.object]
    verb, _, preposition = predicate.rpartition(" ")
    if predicate == "full of" or (predicate == "of" and holder in CONTAINERS):
        return replace(relation, predicate="have")
    if predicate == "of":
        return turned(relation, "have")
    if is_agent(graph, relation) or (verb in COVERING and preposition in ("with", "in")):
        return turned(relation, verb)
    worn = graph.text[slice(*held.span)].lower() in CLOTHES
    if worn and (predicate == "dress in" or (predicate == "in" and holder in PEOPLE)):
        return replace(relation, predicate="wear")
    return relation


def turned(relation: SceneRelation, predicate: str) -> SceneRelation:
    return replace(relation, subject=relation.object, predicate=predicate, object=relation.subject)


def is_agent(graph: SceneGraph, relation: SceneRelation) -> bool:
    """Whether the relation is "VERB by" and the caption spells the verb neither as -ing nor in the present tense."""
    verb, _, preposition = relation.predicate.rpartition(" ")
    if preposition != "by" or not verb or " " in verb:
        return False
    start, end = relation.spans[0]
    spelled = graph.text[start:end].lower()
    return not spelled.endswith("ing") and spelled not in (verb, verb + "s", verb + "es")


def reword(relation: SceneRelation) -> SceneRelation:
    padded = f" {relation.predicate} "
    for ours, theirs in PREDICATE_WORDS.items():
        padded = padded.replace(f" {ours} ", f" {theirs} ")
    return replace(relation, predicate=padded.strip())


def is_left_out(graph: SceneGraph, attribute: SceneAttribute) -> bool:
    """Whether it is a vague number, or what a container is full of says it too."""
    return attribute.word in VAGUE_NUMBERS or (
        attribute.word == "full"
        and any(relation.subject == attribute.of and relation.predicate == "full of" for relation in graph.relations)
    )


def is_of_pronoun(graph: SceneGraph, relation: SceneRelation) -> bool:
    """Whether a possessive pronoun alone says the relation."""
    if relation.predicate != "have" or len(relation.spans) != 1:
        return False
    start, end = relation.spans[0]
    return graph.text[start:end].lower() in SINGULAR_PRONOUNS | PLURAL_PRONOUNS


def without(
    graph: SceneGraph,
    removed: Iterable[int],
    attributes: Iterable[SceneAttribute],
    relations: Iterable[SceneRelation],
) -> SceneGraph:
    """The graph with these facts and without the removed objects, nor anything that is still said of them."""
    gone = frozenset(removed)
    kept = [index for index in range(len(graph.objects)) if index not in gone]
    place = {index: position for position, index in enumerate(kept)}
    return SceneGraph(
        text=graph.text,
        objects=tuple(graph.objects[index] for index in kept),
        attributes=tuple(replace(a, of=place[a.of]) for a in attributes if a.of in place),
        relations=tuple(
            replace(r, subject=place[r.subject], object=place[r.object])
            for r in relations
            if r.subject in place and r.object in place
        ),
    )
