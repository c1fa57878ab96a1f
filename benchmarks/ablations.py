"""Table 4's ablations on abstract scenes: each row a small model trained from fresh weights, by configuration alone.

    python benchmarks/ablations.py build/demo --out build/ablations
    python benchmarks/ablations.py build/demo --out build/ablations --seeds 0 1 2 --steps 600 3000

`build/demo` is what `mvptr-data demo` made: its world is learned from, its other world is measured on. RSUM is that of
re-ranked texts and images, Uni-RSUM that of the uni-modal encoders, of the first caption of each picture; grounding is zero-shot;
words is the accuracy of masked language modelling. Behind a figure stands the paper's (COCO 5k, Flickr30k Entities): orders
compare, values do not. CPU-s are those of a training, or of what was left of a stopped one. A training whose result is in `--out`
is not done again, so a run that was stopped goes on.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from harness import arguments

from mvptr_data.abstract_scenes import read_truth
from mvptr_data.dataset.manifest import load_manifest
from mvptr_data.storage import Store, digest
from mvptr_model.evaluation.measure import Measured, MeasureSettings, measure
from mvptr_model.saved_model import load_model
from mvptr_model.training.pretrain import pretrain
from mvptr_model.training.settings import PretrainSettings
from mvptr_model.training.settings_file import resolved
from pipelines.demo.data_set import DrawnDataSet
from pipelines.demo.learning import DemoTraining, demo_settings
from pipelines.demo.truth import gold_boxes

#: Of the results' files; another one when what they mean changes.
VERSION = 2
#: Their figures, in the table's order; the first three are in the paper's table, too.
FIGURES = ("RSUM", "Uni-RSUM", "grounding", "words")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """A row of table 4: what it changes in the configuration, and the paper's figures (None: it has none)."""

    name: str
    changes: dict[str, Any]
    paper: tuple[float | None, ...]


TABLE = (
    Ablation(name="full", changes={}, paper=(502.6, 471.9, 42.55)),
    Ablation(
        name="no MCR^v",
        changes={"losses": ["mcr_s", "vsc", "wpg", "itm", "mlm"]},
        paper=(498.1, 463.2, 32.05),
    ),
    Ablation(
        name="no tags",
        changes={"inputs": ["w", "c", "r"], "losses": ["mcr_s", "vsc", "wpg", "itm", "mlm"]},
        paper=(494.8, 459.5, 27.60),
    ),
    Ablation(
        name="no WPG or MCR^s",
        changes={"losses": ["mcr_v", "vsc", "itm", "mlm"]},
        paper=(498.3, 468.8, 36.09),
    ),
    Ablation(
        name="no phrases",
        changes={"inputs": ["w", "r", "t"], "losses": ["mcr_v", "vsc", "itm", "mlm"]},
        paper=(500.4, 470.9, 35.04),
    ),
    Ablation(
        name="merged attention",
        changes={"merged_attention": True, "losses": ["mcr_v", "mcr_s", "wpg", "itm", "mlm"]},
        paper=(496.5, None, 29.42),
    ),
)


def main() -> None:
    """Train and measure what is missing, row after row and seed after seed; print the table after each."""
    parser = arguments(__doc__)
    parser.add_argument("demo", type=Path, help="the folder of a finished demo")
    parser.add_argument("--out", type=Path, required=True, help="where trainings and results are kept")
    names = [row.name for row in TABLE]
    parser.add_argument("--rows", nargs="+", choices=names, default=names, metavar="ROW", help=", ".join(names))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, nargs=2, default=[600, 3000], help="of the two stages")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    first, second = (10, 10) if options.quick else options.steps
    training = DemoTraining(first_steps=first, second_steps=second)
    store, unseen = Store.at(options.demo), _drawn(options.demo / "unseen")
    known, found = _drawn(options.demo), Found({})
    for seed in options.seeds:
        for row in (row for row in TABLE if row.name in options.rows):
            settings = demo_settings(store, known, training, seed=seed, **row.changes)
            found.results.setdefault(row.name, []).append(_result(options.out, settings, unseen))
            print("\n".join(found.table()), flush=True)
    print("\n".join(found.orders()))
    if options.json:
        rows = [{"name": name, "seeds": options.seeds, "results": of} for name, of in found.results.items()]
        options.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


def _drawn(folder: Path) -> DrawnDataSet:
    return DrawnDataSet(root=str(folder / "scenes"), truth=read_truth(folder / "world/truth.jsonl"))


def _result(out: Path, settings: PretrainSettings, unseen: DrawnDataSet) -> dict[str, float | None]:
    """The figures of one training, and the seconds that it took; from its file where there is one."""
    values: dict[str, Any] = {name: value for name, value in resolved(settings).items() if name != "output"}
    values["data"] = [load_manifest(Store.at(root))["digest"] for root in (*settings.data, unseen.root)]
    name = digest(values)[:16]
    store = Store.at(out)
    file = f"{name}.json"
    if store.exists(file):
        kept = store.read_json(file)
        if kept.get("version") == VERSION and kept.get("settings") == values:
            return dict(kept["figures"])
    settings = replace(settings, output=str(out / "runs" / name))
    started = time.process_time()
    model = pretrain(settings)
    seconds = time.process_time() - started
    found = measure(load_model(model), unseen.root, gold_boxes(unseen.truth), MeasureSettings(captions="first"))
    figures = _figures(found) | {"cpu_seconds": round(seconds, 1)}
    store.write_json(file, {"version": VERSION, "settings": values, "figures": figures, "measured": asdict(found)})
    return figures


def _figures(found: Measured) -> dict[str, float | None]:
    coarse, grounding = found.retrieved.coarse, found.grounding
    assert grounding is not None, "it was measured with gold boxes"
    values = (
        found.retrieved.reranked.rsum,
        None if coarse is None else coarse.rsum,
        100 * grounding.accuracy,
        100 * found.words.accuracy,
    )
    return dict(zip(FIGURES, values, strict=True))


@dataclass(frozen=True, slots=True)
class Found:
    """By row, the results of its seeds."""

    results: dict[str, list[dict[str, float | None]]]

    def table(self) -> list[str]:
        """A line a row: mean and, of several seeds, standard deviation; the paper's figure behind it."""
        lines = [f"{'':<18}" + "".join(f"{name:>26}" for name in FIGURES) + f"{'CPU-s':>9}"]
        for row in TABLE:
            if row.name in self.results:
                cells = (
                    self._cell(row.name, name, paper) for name, paper in zip(FIGURES, (*row.paper, None), strict=True)
                )
                cost = self.mean(row.name, "cpu_seconds") or 0.0
                lines.append(f"{row.name:<18}" + "".join(f"{cell:>26}" for cell in cells) + f"{cost:>9,.0f}")
        return lines

    def orders(self) -> list[str]:
        """Of each figure of the paper's, the rows from best to worst, here and there."""
        lines = []
        for place, figure in enumerate(FIGURES[:3]):
            here = {name: value for name in self.results if (value := self.mean(name, figure)) is not None}
            there = {row.name: value for row in TABLE if (value := row.paper[place]) is not None and row.name in here}
            lines += [f"{figure}, here:  {_ordered(here)}", f"{figure}, paper: {_ordered(there)}"]
        return lines

    def mean(self, row: str, figure: str) -> float | None:
        """Over the seeds; None for what a row does not have."""
        values = self._values(row, figure)
        return statistics.fmean(values) if values else None

    def _values(self, row: str, figure: str) -> Sequence[float]:
        return [value for result in self.results[row] if (value := result[figure]) is not None]

    def _cell(self, row: str, figure: str, paper: float | None) -> str:
        values = self._values(row, figure)
        if not values:
            return "-"
        spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        return f"{statistics.fmean(values):.1f}{spread}" + (f" ({paper:.1f})" if paper is not None else "")


def _ordered(values: dict[str, float]) -> str:
    return " > ".join(sorted(values, key=lambda name: -values[name]))


if __name__ == "__main__":
    main()
