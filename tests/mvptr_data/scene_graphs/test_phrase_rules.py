"""Each rule of the phrase specification on parses written by hand: what it must say, and what it must not."""

from __future__ import annotations

import pytest

from mvptr_data.scene_graphs.facts import find_profile
from mvptr_data.scene_graphs.phrases import build_graph, find_phrases
from mvptr_data.scene_graphs.rules import find_facts
from tests.mvptr_data.scene_graphs.given_parses import LEMMAS, findings_of, phrases_of, read_parse

ATTRIBUTES = {
    "A1 adjectives": (
        "a/DT/det>3 large/JJ/amod>3 brown/JJ/amod>3 dog/NN/ROOT>3",
        {("dog", "large"), ("dog", "brown")},
    ),
    "A1 participle keeps its surface": ("a/DT/det>2 stuffed/VBN/amod>2 animal/NN/ROOT>2", {("animal", "stuffed")}),
    "A1 joined adjectives": (
        "a/DT/det>4 black/JJ/amod>4 and/CC/cc>1 white/JJ/conj>1 cat/NN/ROOT>4",
        {("cat", "black"), ("cat", "white")},
    ),
    "A1 no determiner": ("some/DT/det>1 dogs/NNS/ROOT>1", set()),
    "A1 other counts, the does not": ("the/DT/det>2 other/JJ/amod>2 dogs/NNS/ROOT>2", {("dog", "other")}),
    "A2 one pair for each part": (
        "a/DT/det>3 stainless/NN/compound>3 steel/NN/compound>3 sink/NN/ROOT>3",
        {("sink", "stainless"), ("sink", "steel")},
    ),
    "A3 joined predicates": (
        "the/DT/det>1 dog/NN/nsubj>2 is/VBZ/ROOT>2 black/JJ/acomp>2 and/CC/cc>3 white/JJ/conj>3",
        {("dog", "black"), ("dog", "white")},
    ),
    "A3 of both subjects": (
        "cats/NNS/nsubj>3 and/CC/cc>0 dogs/NNS/conj>0 are/VBP/ROOT>3 wet/JJ/acomp>3",
        {("cat", "wet"), ("dog", "wet")},
    ),
    "A3 about to is no attribute": (
        "a/DT/det>1 boy/NN/nsubj>2 is/VBZ/ROOT>2 about/JJ/acomp>2 to/TO/aux>5 run/VB/xcomp>3",
        {("boy", "run")},
    ),
    "A3 adverb of place": ("the/DT/det>1 seat/NN/nsubj>2 is/VBZ/ROOT>2 down/RB/advmod>2", {("seat", "down")}),
    "A3 adverb of place after its noun": ("a/DT/det>1 sky/NN/ROOT>1 overhead/RB/advmod>1", {("sky", "overhead")}),
    "A3 adverb before a preposition is no attribute": (
        "the/DT/det>1 cat/NN/nsubj>2 is/VBZ/ROOT>2 up/RB/advmod>2 in/IN/prep>2 trees/NNS/pobj>4",
        {("cat", "up in", "tree")},
    ),
    "A4 number": ("two/CD/nummod>1 boys/NNS/ROOT>1", {("boy", "two")}),
    "A4 digits": ("2/CD/nummod>1 boys/NNS/ROOT>1", {("boy", "2")}),
    "A4 one form for both numbers": ("two/CD/nummod>1 sheep/NN/ROOT>1", {("sheep", "two")}),
    "A4 a plural without its ending": ("two/CD/nummod>1 giraffe/NN/ROOT>1", {("giraffe", "two")}),
    "A4 not of what measures another": (
        "a/DT/det>3 two/CD/nummod>2 door/NN/compound>3 car/NN/ROOT>3",
        {("car", "door")},
    ),
    "A4 not of what has so many": (
        "a/DT/det>3 two/CD/nummod>3 wheeled/JJ/amod>3 cart/NN/ROOT>3",
        {("cart", "wheeled")},
    ),
    "A4 not before a singular": ("one/CD/nummod>1 boy/NN/ROOT>1", set()),
    "A4 not after its noun": ("platforms/NNS/ROOT>0 9/CD/nummod>0", set()),
    "A5 intransitive": ("a/DT/det>1 woman/NN/nsubj>3 is/VBZ/aux>3 smiling/VBG/ROOT>3", {("woman", "smile")}),
    "A5 participle": ("a/DT/det>1 dog/NN/ROOT>1 sleeping/VBG/acl>1", {("dog", "sleep")}),
    "A5 not with an object": ("a/DT/det>1 dog/NN/nsubj>2 eats/VBZ/ROOT>2 it/PRP/dobj>2", set()),
    "A5 compound participle is an adjective": (
        "the/DT/det>1 chair/NN/nsubjpass>3 is/VBZ/auxpass>3 medium-sized/VBN/ROOT>3",
        {("chair", "medium-sized")},
    ),
    "A6 copular noun": (
        "the/DT/det>1 man/NN/nsubj>2 is/VBZ/ROOT>2 a/DT/det>5 baseball/NN/compound>5 player/NN/attr>2",
        {("man", "player"), ("player", "baseball")},
    ),
    "A6 not of there is": ("there/EX/expl>1 is/VBZ/ROOT>1 a/DT/det>3 dog/NN/attr>1", set()),
    "A7 quantifier": (
        "a/DT/det>1 couple/NN/ROOT>1 of/IN/prep>1 young/JJ/amod>4 people/NNS/pobj>2",
        {("people", "couple"), ("people", "young")},
    ),
    "A7 plural quantifier": ("lots/NNS/ROOT>0 of/IN/prep>0 birds/NNS/pobj>1", {("bird", "lot")}),
}

RELATIONS = {
    "R1 object": ("a/DT/det>1 man/NN/nsubj>2 rides/VBZ/ROOT>2 waves/NNS/dobj>2", {("man", "ride", "wave")}),
    "R1 particle": (
        "a/DT/det>1 man/NN/ROOT>1 picking/VBG/acl>1 up/RP/prt>2 trash/NN/dobj>2",
        {("man", "pick up", "trash")},
    ),
    "R2 oblique": (
        "a/DT/det>1 boy/NN/nsubj>2 sits/VBZ/ROOT>2 at/IN/prep>2 a/DT/det>5 table/NN/pobj>3",
        {("boy", "sit at", "table")},
    ),
    "R2 particle and preposition": (
        "a/DT/det>1 man/NN/ROOT>1 standing/VBG/acl>1 up/RP/prt>2 in/IN/prep>2 crowds/NNS/pobj>4",
        {("man", "stand up in", "crowd")},
    ),
    "R2 behind an adverb": (
        "birds/NNS/ROOT>0 seen/VBN/acl>0 here/RB/advmod>1 in/IN/prep>2 trees/NNS/pobj>3",
        {("bird", "see in", "tree")},
    ),
    "R2 two multi-word prepositions in one": (
        "kites/NNS/ROOT>0 held/VBN/acl>0 up/IN/prep>1 in/IN/prep>2 front/NN/pobj>3 of/IN/prep>4 dogs/NNS/pobj>5",
        {("kite", "hold up in front of", "dog")},
    ),
    "R2 object and oblique": (
        "a/DT/det>1 man/NN/ROOT>1 riding/VBG/acl>1 a/DT/det>5 big/JJ/amod>5 wave/NN/dobj>2 on/IN/prep>2 top/NN/pobj>6"
        " of/IN/prep>7 a/DT/det>10 surfboard/NN/pobj>8",
        {("wave", "big"), ("man", "ride", "wave"), ("man", "ride on top of", "surfboard")},
    ),
    "R3 participle": (
        "a/DT/det>1 car/NN/ROOT>1 parked/VBN/acl>1 in/IN/prep>2 front/NN/pobj>3 of/IN/prep>4 a/DT/det>7"
        " building/NN/pobj>5",
        {("car", "park in front of", "building")},
    ),
    "R3 participle taken for a noun": (
        "a/DT/det>1 man/NN/ROOT>1 skiing/NN/acl>1 down/IN/prep>2 hills/NNS/pobj>3",
        {("man", "ski down", "hill")},
    ),
    "R4 both objects": (
        "a/DT/det>1 plate/NN/ROOT>1 of/IN/prep>1 food/NN/pobj>2 with/IN/prep>1 broccoli/NN/pobj>4 and/CC/cc>5"
        " a/DT/det>8 fork/NN/conj>5",
        {("plate", "of", "food"), ("plate", "with", "broccoli"), ("plate", "with", "fork")},
    ),
    "R4 next to is one predicate": (
        "a/DT/det>2 stop/NN/compound>2 sign/NN/ROOT>2 next/RB/advmod>2 to/IN/prep>3 a/DT/det>7 tall/JJ/amod>7"
        " tree/NN/pobj>4",
        {("sign", "stop"), ("sign", "next to", "tree"), ("tree", "tall")},
    ),
    "R4 next as adjective": (
        "a/DT/det>1 sign/NN/ROOT>1 next/JJ/amod>1 to/IN/prep>2 trees/NNS/pobj>3",
        {("sign", "next to", "tree")},
    ),
    "R4 through an adjective": (
        "a/DT/det>1 bowl/NN/ROOT>1 full/JJ/amod>1 of/IN/prep>2 fruit/NN/pobj>3",
        {("bowl", "full"), ("bowl", "full of", "fruit")},
    ),
    "R5 copula": (
        "five/CD/nummod>1 people/NNS/nsubj>2 are/VBP/ROOT>2 in/IN/prep>2 a/DT/det>5 boat/NN/pobj>3",
        {("people", "five"), ("people", "in", "boat")},
    ),
    "R5 there is": (
        "there/EX/expl>1 are/VBP/ROOT>1 people/NNS/attr>1 in/IN/prep>1 the/DT/det>5 boat/NN/pobj>3",
        {("people", "in", "boat")},
    ),
    "R6 possessive noun": ("a/DT/det>1 boy/NN/poss>3 's/POS/case>1 bike/NN/ROOT>3", {("boy", "have", "bike")}),
    "R6 whose": (
        "a/DT/det>1 girl/NN/ROOT>1 whose/WP$/poss>3 hat/NN/nsubj>4 is/VBZ/relcl>1 red/JJ/acomp>4",
        {("girl", "have", "hat"), ("hat", "red")},
    ),
    "R7 finite passive is turned round": (
        "the/DT/det>1 piano/NN/nsubjpass>3 is/VBZ/auxpass>3 played/VBN/ROOT>3 by/IN/agent>3 a/DT/det>6 woman/NN/pobj>4",
        {("woman", "play", "piano")},
    ),
    "R7 participle is not": (
        "a/DT/det>1 bridge/NN/ROOT>1 surrounded/VBN/acl>1 by/IN/agent>2 trees/NNS/pobj>3",
        {("bridge", "surround by", "tree")},
    ),
    "R8 agentless passive": (
        "a/DT/det>1 car/NN/nsubjpass>3 is/VBZ/auxpass>3 parked/VBN/ROOT>3 on/IN/prep>3 the/DT/det>6 side/NN/pobj>4"
        " of/IN/prep>6 roads/NNS/pobj>7",
        {("car", "park on", "side"), ("side", "of", "road")},
    ),
}

SHARING = {
    "joined verbs share a subject": (
        "a/DT/det>1 man/NN/nsubj>2 sits/VBZ/ROOT>2 and/CC/cc>2 reads/VBZ/conj>2 books/NNS/dobj>4",
        {("man", "sit"), ("man", "read", "book")},
    ),
    "open complement": (
        "a/DT/det>1 boy/NN/nsubj>3 is/VBZ/aux>3 trying/VBG/ROOT>3 to/TO/aux>5 catch/VB/xcomp>3 balls/NNS/dobj>5",
        {("boy", "catch", "ball")},
    ),
    "adverbial participle": (
        "a/DT/det>1 man/NN/nsubj>2 stands/VBZ/ROOT>2 holding/VBG/advcl>2 bats/NNS/dobj>3",
        {("man", "stand"), ("man", "hold", "bat")},
    ),
    "relative pronoun": (
        "girls/NNS/nsubj>5 who/WP/nsubj>3 are/VBP/aux>3 wearing/VBG/relcl>0 dresses/NNS/dobj>3 hold/VBP/ROOT>5"
        " umbrellas/NNS/dobj>5",
        {("girl", "wear", "dress"), ("girl", "hold", "umbrella")},
    ),
    "relative clause without its object": (
        "a/DT/det>1 kite/NN/ROOT>1 a/DT/det>3 boy/NN/nsubj>5 is/VBZ/aux>5 holding/VBG/relcl>1",
        {("boy", "hold", "kite")},
    ),
    "relative pronoun taken for a second subject": (
        "kites/NNS/ROOT>0 that/WDT/nsubj>3 boys/NNS/nsubj>3 hold/VBP/relcl>0",
        {("boy", "hold", "kite")},
    ),
    "a phrase after a list describes all of it": (
        "cups/NNS/ROOT>0 and/CC/cc>0 plates/NNS/conj>0 on/IN/prep>0 tables/NNS/pobj>3",
        {("cup", "on", "table"), ("plate", "on", "table")},
    ),
    "a place hung on the last of a list is that of all": (
        "cups/NNS/ROOT>0 and/CC/cc>0 plates/NNS/conj>0 on/IN/prep>2 tables/NNS/pobj>3",
        {("cup", "on", "table"), ("plate", "on", "table")},
    ),
    "what the last of a list has is its own": (
        "cups/NNS/ROOT>0 and/CC/cc>0 plates/NNS/conj>0 of/IN/prep>2 food/NN/pobj>3",
        {("plate", "of", "food")},
    ),
    "a list whose first has a phrase of its own": (
        "men/NNS/ROOT>0 in/IN/prep>0 boats/NNS/pobj>1 and/CC/cc>0 boys/NNS/conj>0 on/IN/prep>4 sand/NN/pobj>5",
        {("man", "in", "boat"), ("boy", "on", "sand")},
    ),
    "a participle after a list": (
        "boys/NNS/ROOT>0 and/CC/cc>0 girls/NNS/conj>0 flying/VBG/acl>2 kites/NNS/dobj>3",
        {("boy", "fly", "kite"), ("girl", "fly", "kite")},
    ),
    "about to": (
        "a/DT/det>1 boy/NN/ROOT>1 about/IN/prep>1 to/TO/aux>4 hit/VB/xcomp>2 balls/NNS/dobj>4",
        {("boy", "hit", "ball")},
    ),
    "passive relative clause with a bare preposition": (
        "the/DT/det>1 street/NN/ROOT>1 the/DT/det>3 bus/NN/nsubjpass>5 is/VBZ/auxpass>5 parked/VBN/relcl>1 on/IN/prep>5",
        {("bus", "park on", "street")},
    ),
    "two subjects side by side": (
        "cats/NNS/nsubj>3 and/CC/cc>0 dogs/NNS/nsubj>3 sleep/VBP/ROOT>3",
        {("cat", "sleep"), ("dog", "sleep")},
    ),
    "clause for a subject": (
        "boys/NNS/nsubj>1 holding/VBG/csubj>3 balls/NNS/dobj>1 stand/VBP/ROOT>3 on/IN/prep>3 sand/NN/pobj>4",
        {("boy", "hold", "ball"), ("boy", "stand on", "sand")},
    ),
    "a place where, not what": (
        "tables/NNS/ROOT>0 where/WRB/advmod>3 cats/NNS/nsubj>3 sit/VBP/relcl>0",
        {("cat", "sit")},
    ),
    "relative clause with a bare preposition": (
        "the/DT/det>1 bench/NN/ROOT>1 the/DT/det>3 man/NN/nsubj>4 sits/VBZ/relcl>1 on/IN/prep>4",
        {("man", "sit on", "bench")},
    ),
    "subjects and objects": (
        "men/NNS/nsubj>3 and/CC/cc>0 women/NNS/conj>0 ride/VBP/ROOT>3 bikes/NNS/dobj>3 and/CC/cc>4 horses/NNS/conj>4",
        {(who, "ride", what) for who in ("man", "woman") for what in ("bike", "horse")},
    ),
    "numbers stand for what they count": (
        "one/CD/nsubj>5 of/IN/prep>0 the/DT/det>3 boys/NNS/pobj>1 is/VBZ/aux>5 running/VBG/ROOT>5",
        {("boy", "run")},
    ),
    "quantified subject": (
        "a/DT/det>1 couple/NN/nsubj>4 of/IN/prep>1 people/NNS/pobj>2 walk/VBP/ROOT>4 down/RP/prt>4 streets/NNS/pobj>5",
        {("people", "couple"), ("people", "walk down", "street")},
    ),
}

PRONOUNS = {
    "possessive": (
        "a/DT/det>1 girl/NN/nsubj>2 holds/VBZ/ROOT>2 her/PRP$/poss>4 umbrella/NN/dobj>2",
        {("girl", "hold", "umbrella"), ("girl", "have", "umbrella")},
    ),
    "plural needs a plural": (
        "a/DT/det>1 dog/NN/nsubj>2 eats/VBZ/ROOT>2 their/PRP$/poss>4 food/NN/dobj>2",
        {("dog", "eat", "food")},
    ),
    "joined nouns are plural": (
        "a/DT/det>1 man/NN/nsubj>5 and/CC/cc>1 a/DT/det>4 boy/NN/conj>1 ride/VBP/ROOT>5 their/PRP$/poss>7"
        " bikes/NNS/dobj>5",
        {(who, verb, "bike") for who in ("man", "boy") for verb in ("ride", "have")},
    ),
    "unresolved": ("he/PRP/nsubj>1 rides/VBZ/ROOT>1 a/DT/det>3 horse/NN/dobj>1", set()),
    "it is nobody": (
        "a/DT/det>1 man/NN/ROOT>1 near/IN/prep>1 a/DT/det>4 tree/NN/pobj>2 with/IN/prep>4 birds/NNS/pobj>5 on/IN/prep>6"
        " it/PRP/pobj>7",
        {("man", "near", "tree"), ("tree", "with", "bird"), ("bird", "on", "tree")},
    ),
    "of another gender": (
        "a/DT/det>1 woman/NN/ROOT>1 near/IN/prep>1 a/DT/det>4 man/NN/pobj>2 with/IN/prep>4 his/PRP$/poss>7 hat/NN/pobj>5",
        {("woman", "near", "man"), ("man", "with", "hat"), ("man", "have", "hat")},
    ),
    "other ones": (
        "a/DT/det>1 dog/NN/ROOT>1 near/IN/prep>1 the/DT/det>4 others/NNS/pobj>2",
        set(),
    ),
    "over a sentence's end": (
        "a/DT/det>1 man/NN/nsubj>2 sits/VBZ/ROOT>2 he/PRP/nsubj>4 smiles/VBZ/ROOT>4",
        {("man", "sit"), ("man", "smile")},
    ),
    "joined to a pronoun": (
        "a/DT/det>1 man/NN/nsubj>4 and/CC/cc>1 them/PRP/conj>1 run/VBP/ROOT>4",
        {("man", "run")},
    ),
}

CORRECTED_HEADS = {
    "worn by the person before": (
        "a/DT/det>1 dog/NN/nsubj>2 sits/VBZ/ROOT>2 by/IN/prep>2 a/DT/det>5 boy/NN/pobj>3 in/IN/prep>2 shorts/NNS/pobj>6",
        {("dog", "sit by", "boy"), ("boy", "in", "shorts")},
    ),
    "wearing": (
        "a/DT/det>1 ball/NN/ROOT>1 behind/IN/prep>1 the/DT/det>4 girl/NN/pobj>2 wearing/VBG/acl>1 shoes/NNS/dobj>5",
        {("ball", "behind", "girl"), ("girl", "wear", "shoe")},
    ),
    "what clothes can do": (
        "men/NNS/ROOT>0 in/IN/prep>0 shirts/NNS/pobj>1 matching/VBG/acl>2 hats/NNS/dobj>3",
        {("man", "in", "shirt"), ("shirt", "match", "hat")},
    ),
    "places do nothing": (
        "people/NNS/ROOT>0 sitting/VBG/acl>0 at/IN/prep>1 tables/NNS/pobj>2 eating/VBG/acl>3 cake/NN/dobj>4",
        {("people", "sit at", "table"), ("people", "eat", "cake")},
    ),
    "someone in a place does": (
        "girls/NNS/ROOT>0 in/IN/prep>0 lakes/NNS/pobj>1 swimming/VBG/acl>2",
        {("girl", "in", "lake"), ("girl", "swim")},
    ),
    "the state of what one has": (
        "a/DT/det>1 dog/NN/ROOT>1 with/IN/prep>1 heads/NNS/pobj>2 down/RB/advmod>1",
        {("dog", "with", "head"), ("head", "down")},
    ),
    "a place after what one has": (
        "a/DT/det>1 man/NN/ROOT>1 with/IN/prep>1 bags/NNS/pobj>2 up/IN/prep>1 trees/NNS/pobj>4",
        {("man", "with", "bag"), ("man", "up", "tree")},
    ),
    "what one has does nothing": (
        "girls/NNS/ROOT>0 with/IN/prep>0 hoods/NNS/pobj>1 sitting/VBG/acl>2 on/IN/prep>3 stairs/NNS/pobj>4",
        {("girl", "with", "hood"), ("girl", "sit on", "stair")},
    ),
    "the whole is white": (
        "a/DT/det>3 white/JJ/amod>2 food/NN/compound>3 container/NN/ROOT>3",
        {("container", "white"), ("container", "food")},
    ),
    "the part is fixed": (
        "a/DT/det>3 hot/JJ/amod>2 dog/NN/compound>3 stand/NN/ROOT>3",
        {("dog", "hot"), ("stand", "dog")},
    ),
    "the part hides a sentence": (
        "a/DT/det>4 black/JJ/amod>2 cow/NN/compound>4 racing/NN/compound>4 water/NN/ROOT>4",
        {("cow", "black"), ("water", "cow"), ("water", "racing")},
    ),
    "people at a place keep what they do": (
        "dogs/NNS/ROOT>0 on/IN/prep>0 men/NNS/pobj>1 sleeping/VBG/acl>2",
        {("dog", "on", "man"), ("man", "sleep")},
    ),
    "do nothing": (
        "a/DT/det>1 woman/NN/ROOT>1 in/IN/prep>1 a/DT/det>4 dress/NN/pobj>2 playing/VBG/acl>4 tennis/NN/dobj>5",
        {("woman", "in", "dress"), ("woman", "play", "tennis")},
    ),
}

NOTHING = {
    "self loop": ("a/DT/det>1 man/NN/ROOT>1 behind/IN/prep>1 a/DT/det>4 man/NN/pobj>2", set()),
    "infinitive after a noun": ("a/DT/det>1 place/NN/ROOT>1 to/TO/aux>3 sit/VB/acl>1", set()),
    "what is not there": (
        "trees/NNS/ROOT>0 with/IN/prep>0 no/DT/det>4 green/JJ/amod>4 leaves/NNS/pobj>1",
        set(),
    ),
    "a sign that says no is there": (
        "a/DT/det>3 no/DT/det>3 parking/NN/compound>3 sign/NN/ROOT>3",
        {("sign", "parking")},
    ),
    "what is not done": (
        "shoes/NNS/nsubj>3 are/VBP/aux>3 not/RB/neg>3 touching/VBG/ROOT>3 ground/NN/dobj>3",
        set(),
    ),
    "no letters": ("a/DT/det>1 😀/NN/ROOT>1 on/IN/prep>1 a/DT/det>4 dog/NN/pobj>2", set()),
    "side by side": ("dogs/NNS/ROOT>0 side/NN/npadvmod>0 by/IN/prep>1 each/DT/pobj>2", set()),
}

CASES = {**ATTRIBUTES, **RELATIONS, **SHARING, **PRONOUNS, **CORRECTED_HEADS, **NOTHING}


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    parse, expected = CASES[name]
    assert phrases_of(parse) == expected


@pytest.mark.parametrize("verb", ["\u202eing", "@sum", "x\u200bing", "走ing", "\u0301ing", "+1"])
def test_predicates_are_written_with_what_objects_are(verb: str) -> None:
    parse = f"a/DT/det>1 man/NN/nsubj>2 {verb}/VBZ/ROOT>2 hats/NNS/dobj>2 on/IN/prep>2 tables/NNS/pobj>4"
    assert phrases_of(parse) == set()
    assert phrases_of(parse.replace(verb, "x-rays")) == {("man", "x-ray", "hat"), ("man", "x-ray on", "table")}


def test_official_profile_names_the_article() -> None:
    parse = ATTRIBUTES["A7 quantifier"][0]
    assert phrases_of(parse, "official") == {("people",), ("people", "a"), ("people", "young")}


def test_official_profile_keeps_self_loops() -> None:
    assert phrases_of(NOTHING["self loop"][0], "official") == {("man",), ("man", "behind", "man")}


def test_official_profile_lets_agentless_passives_go() -> None:
    found = phrases_of(RELATIONS["R8 agentless passive"][0], "official")
    assert found == {("car",), ("side",), ("road",), ("side", "of", "road")}


def test_phrases_are_in_order_of_position_with_their_spans() -> None:
    caption = read_parse(PRONOUNS["possessive"][0])
    phrases = find_phrases(find_facts(caption, LEMMAS, find_profile("paper")))
    text = "a girl holds her umbrella"
    assert [(phrase.words, [text[start:end] for start, end in phrase.spans]) for phrase in phrases] == [
        (("girl", "have", "umbrella"), ["girl", "her", "umbrella"]),
        (("girl", "hold", "umbrella"), ["girl", "holds", "umbrella"]),
    ]


def test_a_phrase_said_twice_is_listed_at_its_first_place() -> None:
    parse = "red/JJ/amod>1 cars/NNS/ROOT>1 and/CC/cc>1 red/JJ/amod>4 cars/NNS/conj>1"
    (phrase,) = find_phrases(find_facts(read_parse(parse), LEMMAS, find_profile("paper")))
    assert phrase == (("car", "red"), ((0, 3), (4, 8)))


OBJECTS = {
    "joined to a modifier": "yellow/NNP/amod>3 and/CC/cc>0 orange/NNP/conj>0 bus/NN/ROOT>3",
    "a bare noun after is": "the/DT/det>1 bus/NN/nsubj>2 is/VBZ/ROOT>2 metal/NN/attr>2",
    "not there": "bus/NN/ROOT>0 with/IN/prep>0 no/DT/det>3 windows/NNS/pobj>1",
}


@pytest.mark.parametrize("name", OBJECTS)
def test_what_names_no_thing_is_no_object(name: str) -> None:
    graph = build_graph(findings_of(OBJECTS[name]), "")
    assert [thing.lemma for thing in graph.objects] == ["bus"]


def test_graph_names_each_mention() -> None:
    caption = read_parse(RELATIONS["R2 object and oblique"][0])
    text = " ".join(caption.words)
    graph = build_graph(find_facts(caption, LEMMAS, find_profile("paper")), text)
    assert [(thing.lemma, text[slice(*thing.span)]) for thing in graph.objects] == [
        ("man", "man"),
        ("wave", "wave"),
        ("surfboard", "surfboard"),
    ]
    assert [(graph.objects[a.of].lemma, a.word) for a in graph.attributes] == [("wave", "big")]
    last = graph.relations[-1]
    assert (graph.objects[last.subject].lemma, graph.objects[last.object].lemma) == ("man", "surfboard")
    assert " ".join(text[start:end] for start, end in last.spans) == "riding on top of"
