"""The record that every detector gives, the registry, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from mvptr_data.detectors import Regions, load_detector
from mvptr_data.errors import InputError


def parts(**changed: Any) -> dict[str, Any]:
    """Two regions, some parts replaced."""
    two = {
        "boxes": np.zeros((2, 4), np.float32),
        "features": np.zeros((2, 2048), np.float32),
        "scores": np.ones(2, np.float32),
        "labels": np.ones(2, np.int32),
        "tags": ("cat", "dog"),
        "attributes": (("red", "small"), ()),
        "attribute_scores": ((0.9, 0.8), ()),
    }
    return {**two, **changed}


def test_regions_know_their_number() -> None:
    assert len(Regions(**parts())) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"boxes": np.zeros((3, 4), np.float32)},
        {"boxes": np.zeros((2, 4), np.float64)},
        {"features": np.zeros((2, 1024), np.float32)},
        {"scores": np.ones((2, 1), np.float32)},
        {"labels": np.ones(2, np.int64)},
        {"attributes": (("red",), ())},
        {"attributes": (("red", "small"),), "attribute_scores": ((0.9, 0.8),)},
    ],
)
def test_parts_that_disagree_are_refused(changed: dict[str, Any]) -> None:
    assert changed.keys() <= {field.name for field in fields(Regions)}
    with pytest.raises(ValueError):
        Regions(**parts(**changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scores": np.array([0.5, 0.6], np.float32)}, "the scores do not descend"),
        ({"scores": np.array([0.9, np.nan], np.float32)}, "a score is NaN or infinite"),
        ({"scores": np.array([np.inf, 0.9], np.float32)}, "a score is NaN or infinite"),
        ({"attribute_scores": ((0.9, float("nan")), ())}, "a score is NaN or infinite"),
        ({"boxes": [[0, 0, 1, 1]] * 2}, "boxes must be a numpy array, got list"),
        ({"tags": "ab"}, "are one text"),
        ({"attributes": ("ab", ())}, "are one text"),
    ],
)
def test_what_is_wrong_with_a_part_is_said(changed: dict[str, Any], message: str) -> None:
    """Scores out of order would cost the model its best regions: it takes the first ones."""
    with pytest.raises(ValueError, match=message):
        Regions(**parts(**changed))


def test_an_unknown_detector_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'yolo'.*compact"):
        load_detector("yolo")


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'treshold'.*score_threshold"):
        load_detector("compact", treshold=0.5)


def run(program: str) -> str:
    """Standard output of a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def test_importing_the_package_imports_no_torch() -> None:
    assert run("import sys, mvptr_data.detectors; print('torch' in sys.modules)") == "False"


def test_without_torch_the_error_says_what_to_install() -> None:
    program = """
import sys
sys.modules["torch"] = None  # what the import system sees where torch is not installed
from mvptr_data.detectors import load_detector
from mvptr_data.errors import MissingDependencyError
try:
    load_detector("compact")
except MissingDependencyError as error:
    print(error)
"""
    assert "needs torch" in (message := run(program)) and "pip install 'mvptr-data[extract]'" in message
