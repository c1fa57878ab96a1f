"""Scene graphs against FACTUAL's gold graphs: ours and SceneGraphParser's on the same parses of the same captions.

    python benchmarks/factual.py --quick
    python benchmarks/factual.py --json factual.json
    python benchmarks/factual.py --split train --errors 20

Set match is the share of captions whose facts are all right and none is missing; F1 is SPICE's, over objects, (object,
attribute) and (subject, predicate, object), and the mean over captions. `mvptr_data/scene_graphs/gold_graphs.py` says how
facts are compared; "as specified" leaves out what it does for FACTUAL's conventions. `--errors` prints captions of the
rules that do not match, with what they say too much (+) and too little (-). The files are those of `../shared`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from harness import Row, arguments, report

from mvptr_data.scene_graphs import SceneGraph, load_parser
from mvptr_data.scene_graphs.gold_graphs import GoldGraph, facts_of, mean_score, read_gold, score

FACTUAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "scene_graphs"
BACKENDS = {"rules": "ours", "sng": "SceneGraphParser"}


def agreement(name: str, graphs: Sequence[SceneGraph], gold: Sequence[GoldGraph], *, conventions: bool) -> list[Row]:
    """Set match, precision, recall and F1 in percent."""
    reached = mean_score(
        [score(facts_of(graph, conventions=conventions), each.facts) for graph, each in zip(graphs, gold, strict=True)]
    )
    form = "" if conventions else ", as specified"
    values = {"set match": reached.set_match, "P": reached.precision, "R": reached.recall, "F1": reached.f1}
    return [Row(name=f"{name}{form}: {what}", value=round(100 * value, 1), unit="%") for what, value in values.items()]


def print_errors(graphs: Sequence[SceneGraph], gold: Sequence[GoldGraph], number: int) -> None:
    """Random captions, the same in every run, whose facts are not the gold ones."""
    missed = [
        (each, facts_of(graph)) for graph, each in zip(graphs, gold, strict=True) if facts_of(graph) != each.facts
    ]
    for each, said in random.Random(0).sample(missed, min(number, len(missed))):
        print(each.caption)
        for sign, facts in (("+", said - each.facts), ("-", each.facts - said)):
            for fact in sorted(facts):
                print(f"   {sign} ({', '.join(fact)})")


def main() -> None:
    """Parse, compare, print the table, write the rows."""
    parser = arguments(__doc__)
    parser.add_argument("--split", choices=("dev", "train"), default="dev", help="the file to compare with")
    parser.add_argument("--errors", type=int, default=0, metavar="N", help="also print N captions that do not match")
    options = parser.parse_args()
    gold = read_gold(FACTUAL / f"factual_{options.split}.csv")
    if options.quick:
        gold = gold[:100]
    captions = [each.caption for each in gold]
    graphs = {backend: load_parser(backend).graphs(captions) for backend in BACKENDS}
    rows = [
        row
        for backend, name in BACKENDS.items()
        for conventions in (True, False)
        for row in agreement(name, graphs[backend], gold, conventions=conventions)
    ]
    report(f"{len(gold)} captions of FACTUAL {options.split}", rows, options.json)
    print_errors(graphs["rules"], gold, options.errors)


if __name__ == "__main__":
    main()
