"""Silver parses corrected by gold scene graphs: of other readings, the one whose facts agree best with the graph.

The silver parses of Visual Genome's regions have gold graphs in FACTUAL (Li et al., ACL Findings 2023). Where the facts
that our rules find in a parse differ from the graph's, `alternatives` tries what a news-trained teacher most often gets
wrong. A change is made only if the rules then find more of the graph's facts, and agree better with it as a whole: no
parse is bent to say less.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from mvptr_data.scene_graphs.alternatives import alternatives
from mvptr_data.scene_graphs.facts import find_profile
from mvptr_data.scene_graphs.gold_graphs import Fact, GoldGraph, facts_of, score
from mvptr_data.scene_graphs.lemmas import Lemmatizer
from mvptr_data.scene_graphs.phrases import build_graph
from mvptr_data.scene_graphs.rules import find_facts
from mvptr_data.scene_graphs.silver import SilverParse, caption_key, lower_case, strip_final_period
from mvptr_data.scene_graphs.tokens import ParsedCaption

#: Changes made to one parse at most.
MAX_CHANGES = 3


class Agreement(NamedTuple):
    """How far a parse agrees with a gold graph: the number of facts they share, and F1."""

    shared: int
    f1: float


class GraphRepairs:
    """Corrects parses by the gold graphs of their captions; where there is none, the parse stays."""

    def __init__(self, gold: Iterable[GoldGraph]) -> None:
        self._wanted: Mapping[str, frozenset[Fact]] = {caption_key(graph.caption): graph.facts for graph in gold}
        self._lemmas = Lemmatizer.bundled()
        self._profile = find_profile("paper")

    def repair_all(self, parses: Sequence[SilverParse]) -> Iterator[SilverParse]:
        """Each parse, corrected."""
        for parse in parses:
            wanted = self._wanted.get(caption_key(parse.text()))
            yield parse if wanted is None else self.repair(parse, wanted)

    def repair(self, parse: SilverParse, wanted: frozenset[Fact]) -> SilverParse:
        """The parse with up to `MAX_CHANGES` changes, each of which made it agree better with the wanted facts."""
        best = self.agreement(parse, wanted)
        for _ in range(MAX_CHANGES):
            if best.f1 == 1:
                break
            readings = [(self.agreement(reading, wanted), reading) for reading in alternatives(parse)]
            better = [pair for pair in readings if pair[0].shared > best.shared and pair[0].f1 > best.f1]
            if not better:
                break
            best, parse = max(better, key=lambda pair: pair[0].f1)  # the first of equals: the nearest head
        return parse

    def agreement(self, parse: SilverParse, wanted: frozenset[Fact]) -> Agreement:
        said = self.facts(parse)
        return Agreement(len(said & wanted), score(said, wanted).f1)

    def facts(self, parse: SilverParse) -> frozenset[Fact]:
        """What the rules find in a parse, in the normal form of gold graphs.

        It is read as the caption parser reads: in lower case, without the final period.
        """
        bare = lower_case(strip_final_period(parse))
        caption = ParsedCaption(list(bare.words), list(bare.tags), list(bare.deps), list(bare.heads))
        return facts_of(build_graph(find_facts(caption, self._lemmas, self._profile), " ".join(bare.words)))
