"""What the caption parser's sizes, features and training data are worth: short trainings that differ in one thing.

    python benchmarks/parser_ablation.py --quick
    python benchmarks/parser_ablation.py --json ablation.json

LAS and UAS: agreement with the teacher on held-out captions. F1: facts of the scene graphs against FACTUAL's gold graphs,
on captions that no variant was trained on: Visual Genome's among the held-out ones, and FACTUAL's development set. Captions
a second: CPU time from text to parse, one thread, best of several rounds. Needs `../shared`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import Row, arguments, report

from mvptr_data.scene_graphs import CaptionParser, load_parser
from mvptr_data.scene_graphs.architecture import Networks, build_pipeline, compact
from mvptr_data.scene_graphs.evaluate import captions_a_second, measure_agreement
from mvptr_data.scene_graphs.gold_graphs import GoldGraph, facts_of, mean_score, read_gold, score
from mvptr_data.scene_graphs.operations import multiply_with_numpy
from mvptr_data.scene_graphs.pipeline import load_pipeline
from mvptr_data.scene_graphs.silver import (
    SilverParse,
    caption_key,
    frequent_words,
    lower_case,
    strip_final_period,
    vary,
)
from mvptr_data.scene_graphs.train import Respell, Sources, save, train

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SILVER = SHARED / "parser" / "silver.jsonl.gz"
GOLD = SHARED / "scene_graphs" / "factual_train.csv"
UNSEEN = SHARED / "scene_graphs" / "factual_dev.csv"
ROUNDS = 5

BUNDLED = Networks()
SOURCES = Sources(silver=SILVER, gold=GOLD, left_out=UNSEEN)


def as_the_rules_read(parse: SilverParse, _: random.Random) -> SilverParse:
    """Always in lower case and without a final period, as `CaptionParser` parses."""
    return lower_case(strip_final_period(parse))


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What one training differs in from the bundled model's."""

    networks: Networks = BUNDLED
    sources: Sources = SOURCES
    respell: Respell = vary


VARIANTS = {
    "bundled model's": Variant(),
    "without gold graphs": Variant(sources=replace(SOURCES, gold=None)),
    "one spelling": Variant(respell=as_the_rules_read),
    "width 64": Variant(networks=replace(BUNDLED, width=64)),
    "width 80": Variant(networks=replace(BUNDLED, width=80)),
    "depth 1": Variant(networks=replace(BUNDLED, depth=1)),
    "depth 3": Variant(networks=replace(BUNDLED, depth=3)),
    "depth 4": Variant(networks=replace(BUNDLED, depth=4)),
    "words alone": Variant(networks=replace(BUNDLED, rows={"NORM": 5000})),
    "prefix and shape too": Variant(
        networks=replace(BUNDLED, rows={"NORM": 5000, "PREFIX": 1000, "SUFFIX": 2500, "SHAPE": 500})
    ),
    "2 pieces": Variant(networks=replace(BUNDLED, pieces=2)),
    "state of 32": Variant(networks=replace(BUNDLED, hidden=32)),
    "state of 128": Variant(networks=replace(BUNDLED, hidden=128)),
    "no upper layer": Variant(networks=replace(BUNDLED, upper=False)),
}


def measure(name: str, variant: Variant, captions: int, epochs: int) -> list[Row]:
    """Trains one variant and measures it."""
    training, held_out = variant.sources.parses()
    random.Random(0).shuffle(training)
    training = training[:captions]
    nlp = build_pipeline(variant.networks)
    multiply_with_numpy(nlp)
    train(nlp, training, epochs=epochs, seed=0, words=1000, rate=0.002, respell=variant.respell)
    with TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        save(compact(nlp, variant.networks, frequent_words(training)), model)
        size = sum(file.stat().st_size for file in model.rglob("*") if file.is_file())
        parser, pipeline = load_parser(spacy_model=model), load_pipeline(model)
    agreement = measure_agreement(pipeline, held_out)
    texts = [parse.text() for parse in held_out]
    row = partial(named_row, name)
    return [
        row("LAS", 100 * agreement.las, "%"),
        row("UAS", 100 * agreement.uas, "%"),
        row("F1, held-out captions", 100 * mean_f1(parser, held_out_graphs(held_out)), "%"),
        row("F1, development set", 100 * mean_f1(parser, read_gold(UNSEEN)), "%"),
        row("parse", max(captions_a_second(pipeline, texts) for _ in range(ROUNDS)), "captions/s"),
        row("size", size / 1e6, "MB"),
    ]


def named_row(variant: str, what: str, value: float, unit: str) -> Row:
    return Row(name=f"{variant}: {what}", value=round(value, 2), unit=unit)


def held_out_graphs(held_out: Sequence[SilverParse]) -> list[GoldGraph]:
    """The gold graphs of captions that are held out."""
    keys = {caption_key(parse.text()) for parse in held_out}
    return [graph for graph in read_gold(GOLD) if caption_key(graph.caption) in keys]


def mean_f1(parser: CaptionParser, gold: Sequence[GoldGraph]) -> float:
    graphs = parser.graphs([graph.caption for graph in gold])
    return mean_score([score(facts_of(said), wanted.facts) for said, wanted in zip(graphs, gold, strict=True)]).f1


def main() -> None:
    """Train and measure, print the table, write the rows."""
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="these variants alone")
    options = parser.parse_args()
    captions, epochs = (300, 1) if options.quick else (30_000, 3)
    rows = [row for name in options.only for row in measure(name, VARIANTS[name], captions, epochs)]
    report(f"{epochs} epochs of {captions} captions each, one thread", rows, options.json)


if __name__ == "__main__":
    main()
