"""Penn Treebank tags and the universal parts of speech they stand for.

The parser predicts Penn tags; `noun_chunks`, the rule lemmatizer and SceneGraphParser read universal ones.
"""

from __future__ import annotations

from spacy.pipeline import AttributeRuler

#: Penn tag -> (universal part of speech, the features that tell the rule lemmatizer whether a word is its own lemma).
PENN_TO_UNIVERSAL: dict[str, tuple[str, str]] = {
    "NN": ("NOUN", "Number=Sing"),
    "NNS": ("NOUN", "Number=Plur"),
    "NNP": ("PROPN", "Number=Sing"),
    "NNPS": ("PROPN", "Number=Plur"),
    "JJ": ("ADJ", "Degree=Pos"),
    "JJR": ("ADJ", "Degree=Cmp"),
    "JJS": ("ADJ", "Degree=Sup"),
    "RB": ("ADV", ""),
    "RBR": ("ADV", "Degree=Cmp"),
    "RBS": ("ADV", "Degree=Sup"),
    "VB": ("VERB", "VerbForm=Inf"),
    "VBD": ("VERB", "Tense=Past|VerbForm=Fin"),
    "VBG": ("VERB", "Aspect=Prog|Tense=Pres|VerbForm=Part"),
    "VBN": ("VERB", "Aspect=Perf|Tense=Past|VerbForm=Part"),
    "VBP": ("VERB", "Tense=Pres|VerbForm=Fin"),
    "VBZ": ("VERB", "Number=Sing|Person=3|Tense=Pres|VerbForm=Fin"),
    "MD": ("AUX", "VerbForm=Fin"),
    "DT": ("DET", ""),
    "PDT": ("DET", ""),
    "WDT": ("PRON", ""),
    "PRP": ("PRON", ""),
    "PRP$": ("PRON", "Poss=Yes"),
    "WP": ("PRON", ""),
    "WP$": ("PRON", "Poss=Yes"),
    "EX": ("PRON", ""),
    "WRB": ("ADV", ""),
    "IN": ("ADP", ""),
    "RP": ("ADP", ""),
    "TO": ("PART", ""),
    "POS": ("PART", ""),
    "CC": ("CCONJ", ""),
    "CD": ("NUM", "NumType=Card"),
    "UH": ("INTJ", ""),
    "FW": ("X", ""),
    "LS": ("X", ""),
    "XX": ("X", ""),
    "ADD": ("X", ""),
    "NFP": ("PUNCT", ""),
    "AFX": ("ADJ", ""),
    "SYM": ("SYM", ""),
    "$": ("SYM", ""),
    "HYPH": ("PUNCT", ""),
    ".": ("PUNCT", ""),
    ",": ("PUNCT", ""),
    ":": ("PUNCT", ""),
    "``": ("PUNCT", ""),
    "''": ("PUNCT", ""),
    "-LRB-": ("PUNCT", ""),
    "-RRB-": ("PUNCT", ""),
    "_SP": ("SPACE", ""),
}

#: Forms of "be", which are auxiliaries whatever their tag.
FORMS_OF_BE = ("am", "are", "be", "been", "being", "is", "was", "were", "'m", "'re", "'s")


def add_universal_tags(ruler: AttributeRuler) -> None:
    """Fills an empty `attribute_ruler` with the table above."""
    for tag, (universal, features) in PENN_TO_UNIVERSAL.items():
        ruler.add([[{"TAG": tag}]], {"POS": universal, "MORPH": features})
    verbs = [tag for tag in PENN_TO_UNIVERSAL if tag.startswith("VB")]
    ruler.add([[{"LOWER": {"IN": list(FORMS_OF_BE)}, "TAG": {"IN": verbs}}]], {"POS": "AUX"})
