"""A user's own detector: the factory that `package.module:factory` names, and the checks of what it makes and returns."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mvptr_data.detectors.interface import Detector, Regions
from mvptr_data.errors import InputError, MvptrError
from mvptr_data.storage import canonical_json

_PLACE = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*(?:\.[^\W\d]\w*)*)")
_README = 'See mvptr_data/detectors/README.md, "Your own detector", for one that works.'


def names_a_factory(name: str) -> bool:
    """Whether a detector's name is the place of a factory rather than an entry of the registry."""
    return ":" in name


def load_own_detector(place: str, options: Mapping[str, Any]) -> Detector:
    """What the factory at `place` makes of `options`.

    Its module is found as `import` finds it, and, after all else, in the folder this process was started in: the command
    does not have that on its path. Workers do the same in theirs. Raises `InputError` that says which part is missing or wrong.
    """
    factory = _factory(place)
    _check_options(place, factory, options)
    try:
        detector = factory(**options)
    except MvptrError:
        raise
    except (Exception, SystemExit) as error:  # one that exits would end the command as if all were done
        raise InputError(f"the detector factory {place!r} raises {_described(error)}", "Mend it.") from error
    _check_detector(place, detector)
    return detector


def check_regions(detector: Detector, images: int, returned: object) -> list[Regions]:
    """What `detect` returned for so many images, if it is a `Regions` for each of them; `Regions` have checked themselves.

    Raises `InputError`: a detector that miscounts would give images the regions of others, so it ends the run.
    """
    name = detector.name
    if not isinstance(returned, list | tuple):
        raise InputError(
            f"the detector {name!r} returned {_kind(returned)} for {images} images", f"Return a list. {_README}"
        )
    wrong = next((entry for entry in returned if not isinstance(entry, Regions)), None)
    if wrong is not None:
        raise InputError(f"the detector {name!r} returned {_kind(wrong)} for an image", f"Return Regions. {_README}")
    if len(returned) != images:
        raise InputError(
            f"the detector {name!r} returned {len(returned)} results for {images} images",
            "Return one Regions an image, in the order given; an image without a thing has Regions of length 0.",
        )
    return list(returned)


def _factory(place: str) -> Callable[..., Any]:
    match = _PLACE.fullmatch(place)
    if match is None:
        raise InputError(f"{place!r} names no detector factory", "Write package.module:factory.")
    module_name, path = match.groups()
    found: Any = _module(place, module_name)
    for part in path.split("."):
        if not hasattr(found, part):
            known = sorted(name for name, value in vars(found).items() if callable(value) and not name.startswith("_"))
            raise InputError(
                f"{module_name!r} ({_file(module_name)}) has no {path!r}",
                f"It has: {', '.join(known[:10]) or 'nothing that can be called'}.",
            )
        found = getattr(found, part)
    if not callable(found):
        raise InputError(
            f"{place!r} is {_kind(found)}, which cannot be called", "Name a function or class that makes the detector."
        )
    return found


def _module(place: str, name: str) -> Any:
    folder = os.getcwd()  # noqa: PTH109 - a string, as sys.path has them
    if folder not in sys.path and "" not in sys.path:
        # It stays: a module that is in parts may import another of them later. Last, so that it hides nothing installed.
        sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise _broken(place, name, error) from error
        raise InputError(
            f"there is no module {error.name!r} for the detector {place!r}, neither installed nor in {folder!r}",
            "Run the command in the folder that holds it, install it, or put its folder on PYTHONPATH; on a cluster, for the "
            "workers as well.",
        ) from error
    except (Exception, SystemExit) as error:
        raise _broken(place, name, error) from error


def _broken(place: str, name: str, error: BaseException) -> InputError:
    return InputError(
        f"importing {name!r} for the detector {place!r} raises {_described(error)}",
        f"`python -c 'import {name}'` shows where.",
    )


def _check_options(place: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """A wrong option is the user's mistake, and not to be mixed up with a `TypeError` from within the factory."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # a class or function of C, which keeps no signature
        return
    try:
        signature.bind(**options)
    except TypeError as error:
        named = [part for part in signature.parameters.values() if part.kind is not part.VAR_KEYWORD]
        raise InputError(
            f"the detector factory {place!r} cannot be called with these options: {error}",
            f"Its options are: {', '.join(map(str, named)) or 'none'}.",
        ) from error


def _check_detector(place: str, detector: Any) -> None:
    made = f"what the factory {place!r} made, {_kind(detector)},"
    for part in ("configuration", "detect"):
        if not callable(getattr(detector, part, None)):
            raise InputError(f"{made} has no method {part!r}", _README)
    if not isinstance(getattr(detector, "name", None), str) or not detector.name:
        raise InputError(f"{made} has no attribute 'name' that is a text", _README)
    if getattr(detector, "prepare", None) is not None and not callable(detector.prepare):
        raise InputError(f"{made} has a 'prepare' that cannot be called", _README)
    window = getattr(detector, "window", 1)
    if type(window) is not int or window < 1:
        raise InputError(f"{made} has the window {window!r}", "Give a whole number of images, at least 1.")
    try:
        first, second = (canonical_json(detector.configuration()) for _ in range(2))
    except MvptrError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"the configuration of {made} cannot be stored as JSON: {_described(error)}",
            "Return a dictionary of texts, finite numbers, booleans, None, lists and dictionaries with texts as keys.",
        ) from error
    if not isinstance(detector.configuration(), dict):
        raise InputError(f"the configuration of {made} is {_kind(detector.configuration())}", "Return a dictionary.")
    if first != second:
        raise InputError(
            f"the configuration of {made} is another one each time it is asked for",
            "Leave out times, ids and addresses.",
        )


def _kind(value: object) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _file(module_name: str) -> str:
    return getattr(sys.modules[module_name], "__file__", None) or "no file"


def _described(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
