"""FACTUAL's gold scene graphs (Li et al., ACL Findings 2023), and how well a scene graph agrees with one.

A graph is a set of facts, tuples of 1 to 3 words: (object,), (object, attribute), (subject, predicate, object), as in
SPICE. Before they are compared, both sides are brought to one normal form (`facts_of`, `read_facts`):

* lower case; nouns singular, verbs in their base form, numbers to twelve as digits; no articles in predicates;
* an object of several words is its last one, with the others as attributes: "fire hydrant" is (hydrant,) and
  (hydrant, fire), because nothing tells which compounds FACTUAL writes as one object (fire hydrant) and which as
  object and attribute (glass wall);
* an attribute of several words is one for each content word: "light blue" is (x, light), (x, blue);
* what FACTUAL by convention says otherwise than the phrase specification is said its way (`factual_form`).

Words match when they are equal. FACTUAL's own script lets synonyms of WordNet match as well; ours does not, so its F1
is a lower bound of theirs.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

from mvptr_data.errors import DamagedFileError, InputError
from mvptr_data.scene_graphs.factual_form import factual_form
from mvptr_data.scene_graphs.graph import SceneGraph
from mvptr_data.scene_graphs.lemmas import Lemmatizer

Fact = tuple[str, ...]

COLUMNS = ("image_id", "region_id", "caption", "scene_graph")
#: Between two facts of "( man , ride , horse ) , ( horse , is , brown )".
BETWEEN_FACTS = re.compile(r"\)\s*,\s*\(")

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
DIGITS = {word: str(number) for number, word in enumerate(NUMBERS)}
ARTICLES = frozenset({"a", "an", "the"})
#: Words without content in an attribute of several (group of, in the distance, laying down).
FUNCTION_WORDS = ARTICLES | frozenset(
    {"and", "at", "by", "down", "for", "from", "in", "of", "off", "on", "out", "over", "to", "up", "with"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldGraph:
    """A region caption of Visual Genome and its facts in normal form."""

    image_id: str
    region_id: str
    caption: str
    facts: frozenset[Fact]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How far two sets of facts agree: shares in 0..1. Of many captions: the means of theirs, as FACTUAL takes them."""

    set_match: float
    precision: float
    recall: float
    f1: float


def read_gold(path: str | Path) -> list[GoldGraph]:
    """The gold graphs of a FACTUAL CSV file, in its order.

    Raises `InputError` where there is no such file, `DamagedFileError` for a file or a graph of another form.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            return [read_row(row, f"{path}, line {number}") for number, row in numbered_rows(file, path)]
    except FileNotFoundError as error:
        raise InputError(f"there is no FACTUAL file {path}", "Give factual_dev.csv or factual_train.csv.") from error


def numbered_rows(file: Iterable[str], path: str | Path) -> Iterator[tuple[int, dict[str, str]]]:
    rows = csv.DictReader(file)
    if tuple(rows.fieldnames or ()) != COLUMNS:
        raise DamagedFileError(
            f"{path} has the columns {rows.fieldnames}, not {list(COLUMNS)}", "Give a CSV file as FACTUAL publishes it."
        )
    for row in rows:
        yield rows.line_num, row


def read_row(row: dict[str, str], place: str) -> GoldGraph:
    return GoldGraph(
        image_id=row["image_id"],
        region_id=row["region_id"],
        caption=row["caption"],
        facts=read_facts(row["scene_graph"], place),
    )


def read_facts(text: str, place: str = "the graph") -> frozenset[Fact]:
    """The facts that FACTUAL writes "( man , ride , horse ) , ( horse , is , brown )", in normal form.

    Raises `DamagedFileError`, naming the place, for anything else.
    """
    facts: set[Fact] = set()
    inner = text.strip().removeprefix("(").removesuffix(")")
    for written in BETWEEN_FACTS.split(inner):
        parts = [part.strip() for part in written.split(",")]
        if len(parts) not in (1, 3) or not all(parts):
            raise DamagedFileError(
                f"{place}: ({written}) is neither (object) nor (subject, predicate, object)",
                "Take the file from its source again.",
            )
        facts |= normal_facts(*parts)
    return frozenset(facts)


def facts_of(graph: SceneGraph, *, conventions: bool = True) -> frozenset[Fact]:
    """The facts of a scene graph in normal form; without `conventions`, they are as the specification says them."""
    if conventions:
        graph = factual_form(graph)
    names = [thing.lemma for thing in graph.objects]
    facts: set[Fact] = set()
    for name in names:
        facts |= normal_facts(name)
    for attribute in graph.attributes:
        facts |= normal_facts(names[attribute.of], "is", attribute.word)
    for relation in graph.relations:
        facts |= normal_facts(names[relation.subject], relation.predicate, names[relation.object])
    return frozenset(facts)


def score(said: frozenset[Fact], wanted: frozenset[Fact]) -> Score:
    """Agreement of what was said of one caption with its gold facts; two empty sets agree."""
    if said == wanted:
        return Score(set_match=1.0, precision=1.0, recall=1.0, f1=1.0)
    shared = len(said & wanted)
    return Score(
        set_match=0.0,
        precision=shared / len(said) if said else 0.0,
        recall=shared / len(wanted) if wanted else 0.0,
        f1=2 * shared / (len(said) + len(wanted)),
    )


def mean_score(scores: Sequence[Score]) -> Score:
    """Means over one or more captions."""
    return Score(
        set_match=fmean(each.set_match for each in scores),
        precision=fmean(each.precision for each in scores),
        recall=fmean(each.recall for each in scores),
        f1=fmean(each.f1 for each in scores),
    )


@cache
def normal_facts(subject: str, predicate: str = "", target: str = "") -> frozenset[Fact]:
    """The facts in normal form of an object alone, of (object, is, attribute), or of (subject, predicate, object)."""
    name, *facts = object_facts(subject)
    (noun,) = name
    if predicate == "is":
        facts += [(noun, attribute) for attribute in attribute_words(target)]
    elif predicate:
        other, *more = object_facts(target)
        facts += [other, *more, (noun, normal_predicate(predicate), other[0])]
    return frozenset([name, *facts])


def object_facts(name: str) -> list[Fact]:
    """(head,), then (head, modifier) for each other word."""
    *modifiers, head = words_of(name)
    noun = lemmas().noun(head)
    return [(noun,), *((noun, normal_attribute(modifier)) for modifier in modifiers)]


def attribute_words(attribute: str) -> list[str]:
    words = words_of(attribute)
    content = [word for word in words if word not in FUNCTION_WORDS]
    return [normal_attribute(word) for word in content or words]


def normal_attribute(word: str) -> str:
    """Number, noun or verb to its base form; which of them it is, is not known (stuffed, slices, two)."""
    return DIGITS.get(word) or (word if word == "left" else lemmas().verb(lemmas().noun(word)))


def normal_predicate(predicate: str) -> str:
    verb, *rest = [word for word in predicate.lower().split() if word not in ARTICLES] or [predicate]
    return " ".join([lemmas().verb(verb), *rest])


def words_of(text: str) -> list[str]:
    """Words in lower case, parted at spaces and inner hyphens (double-decker, double decker)."""
    return re.findall(r"[^\s-]+", text.lower()) or [text]


@cache
def lemmas() -> Lemmatizer:
    return Lemmatizer.bundled()
