"""What the demo says at its end."""

from __future__ import annotations

from pathlib import Path

from mvptr_data.storage import Store
from mvptr_model.evaluation.retrieval import Recalls
from pipelines.console import Reporter
from pipelines.demo.data_set import DrawnDataSet
from pipelines.demo.measuring import DataSummary, Figures, ModelSummary


def report_data(reporter: Reporter, drawn: DrawnDataSet, summary: DataSummary) -> None:
    """The data set against what was drawn."""
    reporter.say("")
    counted = f"{summary.samples:,} samples of {summary.images:,} pictures in {summary.shards} verified shards"
    reporter.say(f"{counted}, {summary.seconds:.0f} s")
    for name in ("tag_recall", "attribute_accuracy", "box_recall", "phrase_f1"):
        reporter.say(f"  {name.replace('_', ' '):<20} {getattr(summary, name):.4f}")
    reporter.say(f"data set  {drawn.root}")
    reporter.say("")


def report_model(reporter: Reporter, store: Store, run: Path, summary: ModelSummary) -> None:
    """The model against chance and itself untrained, then where everything is."""
    reporter.say("")
    counted = f"{summary.pictures:,} unseen pictures with {summary.captions:,} captions"
    reporter.say(f"{counted}; learned and measured in {summary.seconds:.0f} s; in %:")
    for line in model_table(summary):
        reporter.say(line)
    grounding = summary.grounding
    reporter.say(
        f"  of {grounding.phrases:,} phrases some region is right for {100 * grounding.upper_bound:.1f}, "
        f"the largest box for {100 * grounding.largest_box:.1f}, a random one for {100 * grounding.random_box:.1f}; "
        f"{grounding.left_out:,} more could not be asked for"
    )
    for name, place in (
        ("model", run / "stage-2"),
        ("curves", store.path("curves.png")),
        ("pictures", store.path("pictures")),
        ("summary", store.path("summary.json")),
    ):
        reporter.say(f"{name:<9} {place}")


def model_table(summary: ModelSummary) -> list[str]:
    """A row a task; of recalls R@1, R@5 and R@10."""
    columns = (summary.trained, summary.untrained, summary.chance)
    lines = [_row("", "trained", "untrained", "chance"), _row("", *("R@1  R@5 R@10" for _ in columns))]
    for kind, title in (("coarse", "coarse"), ("reranked", "re-ranked")):
        for way in ("image_to_text", "text_to_image"):
            label = f"{way.replace('_', ' ')}, {title}"
            lines.append(_row(label, *(_recalls(getattr(getattr(one, kind), way)) for one in columns)))
        lines.append(_row(f"RSUM, {title}", *(f"{getattr(one, f'{kind}_rsum'):.1f}" for one in columns)))
    for label, name in (("phrases grounded", "grounding_accuracy"), ("masked words recovered", "mlm_accuracy")):
        lines.append(_row(label, *(_share(one, name) for one in columns)))
    return lines


def _row(label: str, *cells: str) -> str:
    return f"  {label:<26}" + "".join(f"{cell:>20}" for cell in cells)


def _recalls(found: Recalls) -> str:
    return " ".join(f"{100 * share:4.1f}" for share in (found.r1, found.r5, found.r10))


def _share(figures: Figures, name: str) -> str:
    return f"{100 * getattr(figures, name):.1f}"
