"""From images to regions: the `Detector` interface and the detectors behind it.

Importing this package imports no torch; `load_detector` does.
"""

from mvptr_data.detectors.interface import Detector, Regions
from mvptr_data.detectors.registry import load_detector

__all__ = ["Detector", "Regions", "load_detector"]
