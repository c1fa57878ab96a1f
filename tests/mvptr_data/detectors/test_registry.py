"""The registry: names, options, and what a name costs before it is used."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from mvptr_data.detectors import load_detector
from mvptr_data.detectors.registry import DETECTORS
from mvptr_data.errors import InputError


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_every_name_leads_to_a_module(name: str) -> None:
    assert importlib.util.find_spec(DETECTORS[name]) is not None


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_unknown_options_are_refused_before_anything_is_read(name: str) -> None:
    with pytest.raises(
        InputError, match=rf"the detector '{name}' has no option 'speed'. Its options are: .*score_threshold"
    ):
        load_detector(name, speed=1)


def test_unknown_names_are_told_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no detector 'yolo'. The detectors are: compact, .*package.module:factory"):
        load_detector("yolo")


def test_the_adapter_does_not_hide_the_library() -> None:
    """A package of ours has the library's name; importing it must not take that name."""
    code = (
        "import sys, mvptr_data.detectors.detectron2.config_file as ours\n"
        "assert ours.__name__.startswith('mvptr_data.')\n"
        "assert 'detectron2' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
