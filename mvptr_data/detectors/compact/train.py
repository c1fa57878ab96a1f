"""The training command: `python -m mvptr_data.detectors.compact.train --output weights.safetensors`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# Read by torch when it is first imported: large pages make a training step a fifth quicker.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

from mvptr_data.detectors.compact.pictures import WORLD_NAMES
from mvptr_data.detectors.compact.training import Progress, TrainingSettings, train
from mvptr_data.detectors.compact.weights import save_weights
from mvptr_data.errors import InputError, MvptrError
from mvptr_data.version import __version__

EXAMPLE = """\
example (the bundled weights; 17 minutes on 2 cores):
  python -m mvptr_data.detectors.compact.train --output weights.safetensors
  python -m mvptr_data.detectors.compact.evaluate --weights weights.safetensors
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, report as plain lines, write the weights file."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except MvptrError as error:
        sys.exit(f"error: {error}")


def _run(options: argparse.Namespace) -> None:
    if options.threads < 1:
        raise InputError(f"threads is {options.threads}", "Train with at least one.")
    settings = TrainingSettings(steps=options.steps, seed=options.seed, batch_size=options.batch_size)
    if not options.output.parent.is_dir():
        raise InputError(
            f"the folder {str(options.output.parent)!r} is not there", "Make it, or choose another --output."
        )
    torch.set_num_threads(options.threads)
    started = time.monotonic()

    def report(progress: Progress) -> None:
        elapsed = time.monotonic() - started
        left = elapsed / progress.step * (settings.steps - progress.step)
        losses = "  ".join(f"{part} {value:.3f}" for part, value in progress.losses.items())
        print(f"step {progress.step}/{settings.steps}  {losses}  {elapsed:.0f} s, {left:.0f} s left", flush=True)

    model = train(settings, report)
    training = {
        "command": f"python -m mvptr_data.detectors.compact.train --steps {settings.steps} --seed {settings.seed} "
        f"--batch-size {settings.batch_size}",
        "seed": settings.seed,
        "release": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    save_weights(options.output, model, WORLD_NAMES, training)
    print(f"wrote {options.output} ({options.output.stat().st_size / 1e6:.2f} MB)")


def _parser() -> argparse.ArgumentParser:
    defaults = TrainingSettings()
    parser = argparse.ArgumentParser(
        prog="python -m mvptr_data.detectors.compact.train",
        description="Train the compact detector on drawn scenes, on CPU.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="where the weights file goes")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="batches (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=int, default=defaults.batch_size, help="pictures a batch (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=defaults.seed, help="of pictures, parameters, sampling (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="torch threads; drawing takes another (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    main()
