"""The learning curves of a pre-training run as one picture, from its `log.jsonl`.

Above: the sum of the losses, each loss, each accuracy. Below: learning rate, norm of the gradient, speed. The stages follow one
another; what is drawn strongly is a running mean of what is drawn faintly.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvptr_data.errors import IncompleteError, MissingDependencyError
from mvptr_model.training.log import flattened, read_log
from pipelines.phrase_figure import CORPUS_COLORS, DOTS_PER_INCH, STYLE, THRESHOLD_LINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (16.0, 8.4)
#: The running mean is over this share of a stage's steps.
SMOOTHED_SHARE = 0.04
#: The names of losses as the paper writes them.
NAMES = {"mcr_v": "MCR$^v$", "mcr_s": "MCR$^s$", "vsc": "VSC", "wpg": "WPG", "itm": "ITM", "mlm": "MLM"}
#: A panel: its title, the keys of a record that it shows (all that begin so), and the scale of its axis.
PANELS = (
    ("Sum of the losses", "loss", "linear"),
    ("Losses", "losses/", "linear"),
    ("Accuracies (VSC: R@1 within the batch)", "accuracies/", "linear"),
    ("Learning rate", "learning_rate", "linear"),
    ("Norm of the gradient, before clipping", "gradient_norm", "log"),
    ("Samples a second", "samples_per_second", "linear"),
)

Floats = NDArray[np.float64]


def draw_curves(run: str | Path) -> bytes:
    """The picture as PNG. Raises `IncompleteError` where there is no log, `MissingDependencyError` without matplotlib."""
    records = read_log(Path(run))
    if not records:
        raise IncompleteError(f"{run} has no log.jsonl with steps", "Give the output folder of `mvptr-train pretrain`.")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "the picture needs matplotlib, which is not installed", "pip install 'mvptr-data[figures]'"
        ) from error
    stages = _stages(records)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, dpi=DOTS_PER_INCH)
        figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.15)
        for axes, (title, key, scale) in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
            _draw(axes, stages, key)
            axes.set(title=title, xlabel="samples", yscale=scale)
            axes.xaxis.set_major_formatter("{x:,.0f}")
            if scale == "log":
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("{x:g}")
            axes.locator_params(axis="x", nbins=6)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _stages(records: Sequence[Mapping[str, Any]]) -> list[dict[str, tuple[Floats, Floats]]]:
    """For each stage: samples since the beginning of the run, and values, of each number in its records."""
    found: list[dict[str, tuple[Floats, Floats]]] = []
    before = 0.0
    for stage in sorted({record["stage"] for record in records}):
        own = [(before + record["samples"], flattened(record)) for record in records if record["stage"] == stage]
        names = dict.fromkeys(name for _, values in own for name in values)
        series = {name: [(place, values[name]) for place, values in own if name in values] for name in names}
        found.append({name: _columns(pairs) for name, pairs in series.items()})
        before = own[-1][0]
    return found


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[Floats, Floats]:
    places, values = np.array(pairs, dtype=float).T
    return places, values


def _draw(axes: Axes, stages: Sequence[Mapping[str, tuple[Floats, Floats]]], key: str) -> None:
    """The curves whose names begin with `key`, over all stages, each with one color."""
    names = sorted(
        {name for stage in stages for name in stage if name == key or (key[-1] == "/" and name.startswith(key))}
    )
    for name, color in zip(names, CORPUS_COLORS, strict=False):
        short = name.removeprefix(key)
        for number, stage in enumerate(one for one in stages if name in one):
            places, values = stage[name]
            label = NAMES.get(short, short) if short and not number else None
            noisy = name != "learning_rate"
            axes.plot(places, smoothed(values) if noisy else values, color=color, linewidth=1.8, label=label)
            if noisy:
                axes.plot(places, values, color=color, alpha=0.22, linewidth=0.8)
    for stage in stages[:-1]:
        axes.axvline(max(places[-1] for places, _ in stage.values()), **THRESHOLD_LINE)
    if len(names) > 1:
        axes.legend(loc="best", ncols=2, fontsize=9)


def smoothed(values: Floats) -> Floats:
    """The mean of each value and those around it, of fewer towards the ends."""
    half = max(1, round(len(values) * SMOOTHED_SHARE / 2))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    first, last = np.maximum(place - half, 0), np.minimum(place + half + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)
