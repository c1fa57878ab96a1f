"""The statistics of `phrase_stats` as one picture.

Above, all corpora: frequency by rank, what a threshold keeps, how many phrases of a text each vocabulary knows. Below, for each
corpus, its most frequent phrases of each kind.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mvptr_data.errors import MissingDependencyError
from mvptr_data.phrases import PhraseWords
from pipelines.phrase_stats import ALL, CorpusStatistics, Frequencies

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

#: Inches: the width, the least height of the upper row, what a bar of coverage needs there; a bar below, and what is around them.
WIDTH, UPPER, COVERAGE_BAR, BAR, AROUND = 16.0, 4.6, 0.5, 0.2, 1.1
DOTS_PER_INCH = 120
#: Room for so many bars at least, so that one alone is no block.
LEAST_BARS = 3
KIND_COLORS = {"attribute": "#3d6fb4", "relation": "#d07f2c", "object": "#5b9a68"}
CORPUS_COLORS = ("#1f3a5f", "#b5432e", "#3f7d4e", "#7a4e9b", "#8a6d1f", "#2b8a9a")
INK, FAINT, GRID = "#1c1e22", "#6e727a", "#e3e5e9"
THRESHOLD_LINE: Any = {"color": FAINT, "linewidth": 1, "linestyle": (0, (4, 3)), "zorder": 1}
STYLE: Any = {  # matplotlib types its 300 keys one by one
    "font.family": "DejaVu Sans",  # matplotlib brings it along: the same picture everywhere
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a caption or a folder may hold "$"
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.edgecolor": "none",
}


def draw_statistics(corpora: Sequence[CorpusStatistics]) -> bytes:
    """The picture as PNG. Raises `MissingDependencyError` without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "the picture needs matplotlib, which is not installed", "pip install 'mvptr-data[figures]'"
        ) from error
    with matplotlib.rc_context(STYLE):
        coverages = sum(len(corpus.coverage) for corpus in corpora)
        heights = [
            max(UPPER, AROUND + COVERAGE_BAR * coverages),
            *(AROUND + BAR * max(map(len, corpus.frequent.values()), default=0) for corpus in corpora),
        ]
        figure = Figure(figsize=(WIDTH, sum(heights)), dpi=DOTS_PER_INCH)
        figure.set_layout_engine("constrained", w_pad=0.2, h_pad=0.15)
        upper, *lower = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        by_rank, by_threshold, known = upper.subplots(1, 3)
        _draw_ranks(by_rank, corpora)
        _draw_thresholds(by_threshold, corpora)
        _draw_coverage(known, corpora)
        for part, corpus in zip(lower, corpora, strict=True):
            columns = part.subplots(1, max(1, len(corpus.frequent)), squeeze=False)[0]
            for axes, (kind, phrases) in zip(columns, corpus.frequent.items(), strict=False):
                _draw_frequent(axes, f"Most frequent {kind}s of {corpus.name}", phrases, KIND_COLORS[kind])
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _draw_ranks(axes: Axes, corpora: Sequence[CorpusStatistics]) -> None:
    """Frequency by rank, both logarithmic: a straight line where words follow Zipf's law."""
    for corpus, color in zip(corpora, _colors(corpora), strict=True):
        ranks, sentences = _rank_frequency(corpus.frequencies[ALL])
        kept = corpus.frequencies[ALL].unique(corpus.min_sentences)
        label = f"{kept:,} kept of {corpus.name}"  # a legend leaves out what begins with "_", as a name may
        axes.plot(ranks, sentences, color=color, linewidth=2, label=label, drawstyle="steps-pre")
        if kept:
            axes.plot([kept], [corpus.min_sentences], "o", color=color, markersize=5)
    for least in sorted({corpus.min_sentences for corpus in corpora}):
        axes.axhline(least, **THRESHOLD_LINE)
        axes.annotate(
            f"{least:,} texts", (1, least), textcoords="offset points", xytext=(0, 4), fontsize=9, color=FAINT
        )
    axes.set(title="Frequency by rank", xlabel="rank", ylabel="texts that contain the phrase")
    axes.set(xscale="log", xlim=_from_one(corpus.frequencies[ALL].unique() for corpus in corpora))
    axes.set(yscale="log", ylim=_from_one(max(corpus.frequencies[ALL].phrases, default=0) for corpus in corpora))
    _write_numbers(axes.xaxis, axes.yaxis)
    axes.legend(loc="upper right")


def _draw_thresholds(axes: Axes, corpora: Sequence[CorpusStatistics]) -> None:
    """What any threshold would keep."""
    for corpus, color in zip(corpora, _colors(corpora), strict=True):
        thresholds, unique, mentions = _kept_by_threshold(corpus.frequencies[ALL])
        axes.plot(thresholds, mentions, color=color, linewidth=2, label=f"mentions of {corpus.name}")
        axes.plot(thresholds, unique, color=color, linewidth=1.5, linestyle=":", label=f"phrases of {corpus.name}")
    for least in sorted({corpus.min_sentences for corpus in corpora}):
        axes.axvline(least, **THRESHOLD_LINE)
    axes.set(title="Kept by a threshold", xlabel="least texts a phrase needs", ylabel="share kept, %", ylim=(0, 100))
    axes.set(xscale="log", xlim=_from_one(max(corpus.frequencies[ALL].phrases, default=0) for corpus in corpora))
    _write_numbers(axes.xaxis)
    axes.legend(loc="upper right")


def _draw_coverage(axes: Axes, corpora: Sequence[CorpusStatistics]) -> None:
    """Known phrases a text, by kind, for every corpus and vocabulary; the share of all mentions beside each bar."""
    labels, place = [], 0.0
    for corpus in corpora:
        for vocabulary, by_kind in corpus.coverage.items():
            left = 0.0
            for kind in (kind for kind in corpus.kinds if kind != ALL):
                width = by_kind[kind].mentions / max(1, corpus.texts)
                axes.barh(place, width, left=left, height=0.7, color=KIND_COLORS[kind])
                left += width
            share = by_kind[ALL].mentions / max(1, corpus.frequencies[ALL].mentions())
            axes.annotate(
                f"{left:.2f}  ({share:.0%})", (left, place), textcoords="offset points", xytext=(5, 0), va="center"
            )
            labels.append((place, f"{corpus.name}\nby {vocabulary}"))
            place += 1
        place += 0.4
    axes.set_yticks([at for at, _ in labels], [label for _, label in labels], color=INK, fontsize=9)
    axes.set_ylim(max(place, LEAST_BARS) - 0.5, -0.7)
    axes.margins(x=0.28)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("Known phrases of a text")
    axes.set_xlabel("phrases a text (share of all mentions)")
    shown = dict.fromkeys(kind for corpus in corpora for kind in corpus.kinds if kind != ALL)
    handles = [axes.barh(0, 0, color=KIND_COLORS[kind], label=f"{kind}s") for kind in shown]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, fontsize=9, handlelength=1)


def _draw_frequent(axes: Axes, title: str, phrases: Sequence[tuple[PhraseWords, int]], color: str) -> None:
    places = range(len(phrases))
    axes.barh(places, [sentences for _, sentences in phrases], color=color, height=0.74)
    for place, (_, sentences) in zip(places, phrases, strict=True):
        axes.annotate(
            f"{sentences:,}",
            (sentences, place),
            textcoords="offset points",
            xytext=(4, 0),
            va="center",
            fontsize=8.5,
            color=FAINT,
        )
    axes.set_yticks(places, [" · ".join(words) for words, _ in phrases], color=INK, fontsize=9)
    axes.set_ylim(len(phrases) - 0.4, -0.6)
    axes.margins(x=0.1)
    axes.set(title=title, xlabel="texts")
    axes.locator_params(axis="x", nbins=5, integer=True)
    _write_numbers(axes.xaxis)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _from_one(values: Iterable[int]) -> tuple[float, float]:
    """The limits of a logarithmic scale that shows 1 to the largest of `values`, or to 10 at least."""
    return 0.7, 1.4 * max(10, *values)


def _write_numbers(*scales: Axis) -> None:
    """Ticks as 10,000, not as powers of ten."""
    for scale in scales:
        scale.set_major_formatter("{x:,.0f}")


def _colors(corpora: Sequence[CorpusStatistics]) -> list[str]:
    return [CORPUS_COLORS[number % len(CORPUS_COLORS)] for number in range(len(corpora))]


def _rank_frequency(found: Frequencies) -> tuple[np.ndarray, np.ndarray]:
    """The last rank (from 1) of each frequency, and the frequency; descending."""
    sentences = np.array(sorted(found.phrases, reverse=True), dtype=float)
    return np.cumsum([found.phrases[int(count)] for count in sentences]), sentences


def _kept_by_threshold(found: Frequencies) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every threshold that makes a difference, and the per cent of phrases and of mentions that it keeps."""
    ranks, sentences = _rank_frequency(found)
    phrases = np.diff(ranks, prepend=0)
    mentions = np.cumsum(phrases * sentences)
    shares = [100 * kept / max(1, kept[-1]) if len(kept) else kept for kept in (ranks, mentions)]
    return sentences[::-1], shares[0][::-1], shares[1][::-1]
