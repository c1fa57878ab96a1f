"""The evaluation command: `python -m mvptr_data.detectors.compact.evaluate --pictures 500`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mvptr_data.detectors.compact.detector import CompactDetector
from mvptr_data.detectors.compact.evaluation import Evaluation, evaluate
from mvptr_data.detectors.compact.options import PRECISIONS, CompactOptions
from mvptr_data.detectors.compact.pictures import WORLD_NAMES, labeled_picture
from mvptr_data.detectors.compact.weights import BUNDLED_WEIGHTS, load_weights
from mvptr_data.detectors.interface import Regions
from mvptr_data.errors import InputError, MvptrError

#: Of the evaluation's pictures; the bundled weights were trained on another.
DEFAULT_SEED = 20212

#: Regions down to this score enter the precision-recall curve.
CURVE_THRESHOLD = 0.01

EXAMPLE = """\
example:
  python -m mvptr_data.detectors.compact.evaluate --pictures 500
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """An evaluation, and what it cost."""

    evaluation: Evaluation
    things: int
    #: Pictures a second through `detect`, drawing and decoding left out.
    pictures_per_second: float
    #: Score from which on a region counts outside of the curve: the detector's default.
    threshold: float


def measure(weights: Path, *, pictures: int, seed: int, precision: str = "fp32") -> Measured:
    """Run the detector in `weights` over `pictures` drawn pictures of the world `seed`.

    Raises `InputError` where the pictures are those of training or the weights name another world's things.
    """
    if pictures < 1:
        raise InputError(f"pictures is {pictures}", "Evaluate on at least one picture.")
    trained = load_weights(weights)
    if trained.names != WORLD_NAMES:
        raise InputError(f"{str(weights)!r} was trained on other kinds, colors or sizes", "Train with this release.")
    if trained.training.get("seed") == seed:
        raise InputError(f"seed {seed} is the training's own: these pictures were seen", "Choose another --seed.")
    detector = CompactDetector(trained, CompactOptions(precision=precision, score_threshold=CURVE_THRESHOLD))
    found: list[Regions] = []
    truth = []
    seconds = 0.0
    for index in range(pictures):
        picture = labeled_picture(seed, index)
        started = time.perf_counter()
        found.extend(detector.detect([picture.image]))
        seconds += time.perf_counter() - started
        truth.append(picture.things)
    threshold = CompactOptions().score_threshold
    return Measured(
        evaluation=evaluate(found, truth, threshold=threshold),
        things=sum(len(things) for things in truth),
        pictures_per_second=pictures / seconds,
        threshold=threshold,
    )


def lines(measured: Measured) -> list[str]:
    """The printed report."""
    result = measured.evaluation
    kinds = sorted(result.ap50_by_kind.items(), key=lambda pair: pair[1])
    return [
        f"AP50                {result.ap50:.3f}   mean over {len(kinds)} kinds, {measured.things} things",
        *(f"  {kind:<18}{value:.3f}" for kind, value in kinds),
        f"at score >= {measured.threshold}",
        f"  precision         {result.precision:.3f}",
        f"  recall            {result.recall:.3f}",
        *(f"    {size:<16}{value:.3f}" for size, value in result.recall_by_size.items()),
        f"  attributes right  {result.attribute_accuracy:.3f}",
        f"    color           {result.color_accuracy:.3f}",
        f"    size            {result.size_accuracy:.3f}",
        f"pictures/s          {measured.pictures_per_second:.1f}   {torch.get_num_threads()} threads",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        measured = measure(options.weights, pictures=options.pictures, seed=options.seed, precision=options.precision)
    except MvptrError as error:
        sys.exit(f"error: {error}")
    print("\n".join(lines(measured)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mvptr_data.detectors.compact.evaluate",
        description="Measure the compact detector on drawn pictures that training has not seen.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pictures", type=int, default=500, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="of the pictures (default: %(default)s)")
    parser.add_argument("--weights", type=Path, default=BUNDLED_WEIGHTS, help="default: the bundled ones")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=0, help="torch threads (default: torch's own number)")
    return parser


if __name__ == "__main__":
    main()
