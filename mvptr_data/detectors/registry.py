"""Detectors by name, or by the place of a factory. A module, and torch with it, is imported when its detector is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from mvptr_data.detectors.interface import Detector
from mvptr_data.detectors.own import load_own_detector, names_a_factory
from mvptr_data.errors import InputError, MissingDependencyError

#: Name -> the module that makes the detector: `load(**options)`, and `OPTIONS`, the names of the options.
DETECTORS = {
    "compact": "mvptr_data.detectors.compact.detector",
    "detectron2": "mvptr_data.detectors.detectron2.detector",
    "vinvl": "mvptr_data.detectors.vinvl.detector",
}

#: What every detector here computes with.
REQUIRED_PACKAGES = ("torch", "torchvision", "safetensors")


def load_detector(name: str, **options: Any) -> Detector:
    """The detector called `name`, ready to detect; `options` are those of its own module, by keyword.

    `package.module:factory` calls that function or class of yours with the options. Raises `InputError` for an unknown name
    or option or a factory that cannot be used, and `MissingDependencyError` where torch is not installed.
    """
    if names_a_factory(name):
        return load_own_detector(name, options)
    if name not in DETECTORS:
        raise InputError(
            f"there is no detector {name!r}",
            f"The detectors are: {', '.join(sorted(DETECTORS))}; your own goes by package.module:factory.",
        )
    missing = [package for package in REQUIRED_PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingDependencyError(
            f"the detector {name!r} needs {', '.join(missing)}, not installed here",
            "Install with: pip install 'mvptr-data[extract]'",
        )
    module = importlib.import_module(DETECTORS[name])
    unknown = sorted(set(options) - set(module.OPTIONS))
    if unknown:
        raise InputError(
            f"the detector {name!r} has no option {', '.join(map(repr, unknown))}",
            f"Its options are: {', '.join(module.OPTIONS)}.",
        )
    detector: Detector = module.load(**options)
    return detector
