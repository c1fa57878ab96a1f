"""Options of the commands that extract: which detector, how to decode, how to run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipelines.cli.options import cluster_options
from pipelines.cluster import ClusterOptions

if TYPE_CHECKING:
    from mvptr_data.sources.decoding import DecodeOptions
    from pipelines.detector_runner import DetectorChoice

Command = TypeVar("Command", bound=Callable[..., Any])

_DETECTOR = (
    click.option(
        "--detector",
        default="compact",
        show_default=True,
        help="compact (bundled, for drawn scenes), vinvl, detectron2, or package.module:factory of your own.",
    ),
    click.option("--weights", metavar="FILE", help="The detector's weights, instead of its own or the hub's."),
    click.option("--label-map", metavar="FILE", help="vinvl, detectron2: names of classes and attributes (JSON)."),
    click.option("--config", metavar="FILE", help="detectron2: the model's configuration (YAML)."),
    click.option("--device", metavar="DEVICE", help="Where to compute: cpu, cuda, cuda:1.  [default: the detector's]"),
    click.option("--precision", metavar="NAME", help="fp32, fp16 or bf16, as the detector has them.  [default: fp32]"),
    click.option(
        "--option",
        "options",
        multiple=True,
        metavar="NAME=VALUE",
        help="Any other option of the detector, e.g. score_threshold=0.4; may be repeated.",
    ),
)
_DECODE = (
    click.option(
        "--max-pixels",
        type=click.IntRange(1),
        default=100_000_000,
        show_default=True,
        help="Images with more are recorded as too_large.",
    ),
    click.option(
        "--min-side",
        type=click.IntRange(1),
        default=16,
        show_default=True,
        help="Images with a shorter side below are recorded as too_small.",
    ),
    click.option(
        "--exif/--no-exif", default=False, show_default=True, help="Turn images as their EXIF orientation says."
    ),
)
_INPUT = (
    click.option("--split", help="Split to note for every image (train, val, test)."),
    click.option("--root", help="Folder that absolute paths of a file list are relative to."),
)
#: Gives `max_failures`, for `parse_budget`.
max_failures_option = click.option(
    "--max-failures",
    metavar="N|P%",
    help="End the run when more inputs than this have failed (a number, or a percentage of all).",
)
_RUN = (
    max_failures_option,
    click.option(
        "--decode-threads",
        type=click.IntRange(1),
        help="Threads of a worker that read and decode images.  [default: its share of the cores]",
    ),
)
#: Command-line options that are options of the detector under another name.
_NAMED = ("weights", "label_map", "config", "device", "precision")
#: Options of the detectors here that name files.
_FILES = ("weights", "label_map", "config", "classes", "attributes")


def detector_options(command: Command) -> Command:
    """Which detector, and how images are decoded: what decides the regions."""
    return _decorated(command, (*_DETECTOR, *_DECODE))


def extraction_options(command: Command) -> Command:
    """All that `extract-regions` and `add` share."""
    return cluster_options(_decorated(command, (*_INPUT, *_DETECTOR, *_DECODE, *_RUN)))


def detector_and_decode(given: dict[str, Any]) -> dict[str, DetectorChoice | DecodeOptions]:
    """Takes the values of `detector_options` out of `given` and makes `detector` and `decode` of them."""
    from mvptr_data.sources.decoding import DecodeOptions
    from pipelines.detector_runner import DetectorChoice

    pairs = [_parse_option(option) for option in given.pop("options")]
    pairs += [(name, value) for name in _NAMED if (value := given.pop(name)) is not None]
    pairs = [(name, _path(value) if name in _FILES else value) for name, value in pairs]
    if len(dict(pairs)) != len(pairs):
        raise click.BadParameter("an option of the detector is given twice", param_hint="--option")
    decode = DecodeOptions(**{name: given.pop(name) for name in ("max_pixels", "min_side", "exif")})
    return {"detector": DetectorChoice(name=given.pop("detector"), options=tuple(sorted(pairs))), "decode": decode}


def extraction_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """The values of `extraction_options` as keywords of `extract_regions` and `add_images`."""
    from pipelines.runs.budget import parse_budget

    cluster = {name: given.pop(name) for name in ("cluster", "cluster_config", "workers", "threads")}
    budget = given.pop("max_failures")
    return {
        **detector_and_decode(given),
        "cluster": ClusterOptions(**cluster),
        "max_failures": None if budget is None else parse_budget(budget),
        **given,
    }


def _path(value: Any) -> Any:
    """A file's absolute path, since workers may stand in another folder; anything else as it is."""
    return str(Path(value).absolute()) if isinstance(value, str) and Path(value).exists() else value


def _decorated(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def _parse_option(text: str) -> tuple[str, Any]:
    """`name=value`, the value read as JSON where it is a number, string, boolean or null, else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE", param_hint="--option")
    try:
        found = json.loads(value)
    except (json.JSONDecodeError, RecursionError):
        return name, value
    return name, value if isinstance(found, list | dict) or found != found else found
