"""The rules applied: which dependency label calls which rule.

One pass over the tokens for what their labels say, one over the prepositions. The order of rules decides nothing:
phrases are put in order of position afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from mvptr_data.scene_graphs import attribute_rules, relation_rules
from mvptr_data.scene_graphs.arguments import NOUN_TAGS, QUANTIFIERS, VERB_TAGS
from mvptr_data.scene_graphs.attachments import correct_heads
from mvptr_data.scene_graphs.facts import Findings, Profile
from mvptr_data.scene_graphs.lemmas import Lemmatizer
from mvptr_data.scene_graphs.readings import correct_readings
from mvptr_data.scene_graphs.tokens import ParsedCaption

#: Raised whenever any caption's phrases can change through code, so that data sets know which rules made them.
RULES_VERSION = 3

Rule = Callable[[Findings, int], None]
RULES_BY_LABEL: dict[str, tuple[Rule, ...]] = {
    "amod": (attribute_rules.modifier,),
    "compound": (attribute_rules.compound,),
    "nmod": (attribute_rules.compound,),
    "nummod": (attribute_rules.number,),
    "acomp": (attribute_rules.predicate_adjective,),
    "oprd": (attribute_rules.predicate_adjective,),
    "advmod": (attribute_rules.predicate_adverb,),
    "prt": (attribute_rules.predicate_adverb,),
    "attr": (attribute_rules.copular_noun,),
    "dobj": (relation_rules.direct_object,),
    "dative": (relation_rules.direct_object,),
    "relcl": (relation_rules.relative_object,),
    "poss": (relation_rules.possessive,),
}


def find_facts(caption: ParsedCaption, lemmas: Lemmatizer, profile: Profile) -> Findings:
    """All attributes and relations of a caption, whose heads are corrected in place."""
    correct_readings(caption, lemmas)
    correct_heads(caption)
    findings = Findings(caption, lemmas, profile)
    tags, words = caption.tags, caption.words
    for token, label in enumerate(caption.deps):
        for rule in RULES_BY_LABEL.get(label, ()):
            rule(findings, token)
        if tags[token] in VERB_TAGS or label in ("acl", "advcl"):
            attribute_rules.intransitive(findings, token)
        elif words[token] in QUANTIFIERS and tags[token] in NOUN_TAGS:
            attribute_rules.quantifier(findings, token)
    for preposition in findings.prepositions:
        relation_rules.prepositional(findings, preposition)
    return findings
