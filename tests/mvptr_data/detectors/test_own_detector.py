"""A user's own detector: found where users keep it, refused with the reason, and run by real workers."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvptr_data.detectors import Regions, load_detector, own
from mvptr_data.detectors.own import check_regions
from mvptr_data.errors import InputError

README = Path(own.__file__).with_name("README.md")
GOOD = """
class Made:
    name = "made"
    def __init__(self, speed=1, *, color="red"):
        self.speed, self.color = speed, color
    def configuration(self):
        return {"name": self.name, "speed": self.speed, "color": self.color}
    def detect(self, images):
        return []
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """`module(text)`: the name of a new module with that text in the current folder, which is on no path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(Path.cwd()))])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(text: str) -> str:
        name = f"own_{len(list(tmp_path.glob('own_*.py')))}_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def example() -> str:
    """The module that the README shows."""
    blocks: list[str] = re.findall(r"```python\n(# grid\.py\n.*?)```", README.read_text(), re.DOTALL)
    (block,) = blocks
    return block


def test_a_class_and_a_function_in_the_current_folder(module: Callable[[str], str]) -> None:
    name = module(GOOD + "\ndef make(**options):\n    return Made(**options)\n\nclass Shelf:\n    factory = Made\n")
    for place in ("Made", "make", "Shelf.factory"):
        detector = load_detector(f"{name}:{place}", speed=3, color="blue")
        assert detector.configuration() == {"name": "made", "speed": 3, "color": "blue"}
    assert load_detector(f"{name}:Made").configuration()["speed"] == 1


def test_modules_in_parts_find_each_other(module: Callable[[str], str], tmp_path: Path) -> None:
    """Also when one is imported only while detecting: the folder stays on the path."""
    part = module("FOUND = []\n")
    name = module(GOOD.replace("return []", f"from {part} import FOUND; return FOUND"))
    assert load_detector(f"{name}:Made").detect([]) == []
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package/inner.py").write_text(GOOD)
    assert load_detector("own_package.inner:Made").name == "made"


def test_installed_modules_come_first(module: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "colorsys.py").write_text("raise SystemExit('the wrong one')")
    with pytest.raises(InputError, match=r"'colorsys' \(.*lib.*\) has no 'make'. It has: .*hls_to_rgb"):
        load_detector("colorsys:make")


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (
            "",
            "nowhere_at_all:make",
            r"no module 'nowhere_at_all' .*neither installed nor in '/.*PYTHONPATH; on a cluster",
        ),
        ("", "{}.sub:make", r"no module '.*sub'|raises"),
        (
            "import nowhere_at_all",
            "{}:make",
            r"importing .* raises ModuleNotFoundError: No module named 'nowhere_at_all'",
        ),
        ("1 / 0", "{}:make", r"raises ZeroDivisionError: division by zero. `python -c 'import own_.*'` shows where"),
        ("raise SystemExit(3)", "{}:make", "raises SystemExit: 3"),
        ("def f(:", "{}:make", "raises SyntaxError"),
        ("def other(): ...", "{}:make", "has no 'make'. It has: other"),
        ("make = 5", "{}:make", "is an int, which cannot be called"),
        ("", "{}:", "names no detector factory. Write package.module:factory"),
        ("", "{}:a b", "names no detector factory"),
        ("", "../{}:make", "names no detector factory"),
        ("", "{}.py:make", r"no module|raises"),
        (GOOD, "{}:Made(1)", "names no detector factory"),
        ("def make(): raise OSError('no file x')", "{}:make", r"factory '.*:make' raises OSError: no file x"),
        ("def make(): raise SystemExit(0)", "{}:make", r"factory '.*:make' raises SystemExit: 0"),
        (GOOD.replace("self.name", "exit()"), "{}:Made", "cannot be stored as JSON: SystemExit"),
        ("def make(): return None", "{}:make", "None, has no method 'configuration'"),
        (GOOD.replace("def detect", "def find"), "{}:Made", "a Made, has no method 'detect'"),
        (GOOD.replace('name = "made"', ""), "{}:Made", "has no attribute 'name' that is a text"),
        (GOOD.replace('name = "made"', "name = 5"), "{}:Made", "has no attribute 'name' that is a text"),
        (GOOD.replace("self.name", "object()"), "{}:Made", "cannot be stored as JSON: TypeError"),
        (
            GOOD.replace("self.speed,", "float('nan'),", 2).replace("float('nan'), self", "self.speed, self"),
            "{}:Made",
            "stored as JSON",
        ),
        (
            GOOD.replace("return {", "return [").replace("}", "]").replace('": ', '", '),
            "{}:Made",
            "is a list. Return a dictionary",
        ),
        (
            GOOD.replace(
                "self.name",
                "id(object()) + __import__('itertools').count.__hash__(self) * 0 + __import__('time').time_ns()",
            ),
            "{}:Made",
            "another one each time",
        ),
        (GOOD + "    prepare = 5\n", "{}:Made", "has a 'prepare' that cannot be called"),
        (GOOD + "    window = 0\n", "{}:Made", "has the window 0"),
        (GOOD + "    window = 2.5\n", "{}:Made", "has the window 2.5"),
    ],
)
def test_what_is_wrong_is_said(module: Callable[[str], str], text: str, place: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_detector(place.format(module(text)))


@pytest.mark.parametrize(("options", "message"), [({"sped": 1}, "'sped'"), ({"speed": 1, "x": 2}, "'x'")])
def test_unknown_options_are_named_with_the_known_ones(
    module: Callable[[str], str], options: dict[str, Any], message: str
) -> None:
    name = module(GOOD)
    with pytest.raises(
        InputError, match=rf"unexpected keyword argument {message}. Its options are: speed=1, color='red'"
    ):
        load_detector(f"{name}:Made", **options)
    with pytest.raises(InputError, match=r"missing a required argument: 'path'.*Its options are: path"):
        load_detector(f"{module('def make(path): return None')}:make")


def regions(count: int = 1) -> Regions:
    return Regions(
        boxes=np.tile(np.array([0, 0, 1, 1], np.float32), (count, 1)),
        features=np.zeros((count, 2048), np.float32),
        scores=np.ones(count, np.float32),
        labels=np.ones(count, np.int32),
        tags=("x",) * count,
        attributes=((),) * count,
        attribute_scores=((),) * count,
    )


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned None for 2 images. Return a list"),
        (regions(), "returned a Regions for 2 images. Return a list"),
        (iter([regions(), regions()]), "returned a list_iterator for 2 images"),
        ([regions()], "returned 1 results for 2 images. Return one Regions an image"),
        ([regions()] * 3, "returned 3 results for 2 images"),
        ([regions(), {"boxes": []}], "returned a dict for an image. Return Regions"),
    ],
)
def test_what_detect_returns_is_checked(module: Callable[[str], str], returned: object, message: str) -> None:
    detector = load_detector(f"{module(GOOD)}:Made")
    with pytest.raises(InputError, match=f"the detector 'made' {message}"):
        check_regions(detector, 2, returned)
    fine = (regions(), regions(0))
    assert check_regions(detector, 2, fine) == list(fine)


def test_the_readmes_detector(tmp_path: Path, module: Callable[[str], str]) -> None:
    assert len(example().strip().splitlines()) <= 32
    detector = load_detector(f"{module(example())}:GridDetector", cells=3)
    image = Image.effect_noise((100, 71), 80).convert("RGB")
    first, second = detector.detect([image, image.resize((31, 50))])
    assert len(first) == len(second) == 9 and first.boxes[-1].tolist() == [
        pytest.approx(200 / 3),
        pytest.approx(142 / 3),
        100,
        71,
    ]
    assert (first.boxes[:, 2:] <= [100, 71]).all() and not np.array_equal(first.features[0], first.features[1])


def test_the_command_and_its_workers_find_it(world: Any, tmp_path: Path, module: Callable[[str], str]) -> None:
    """The installed command, which has no current folder on its path, with two worker processes; then the same in this one."""
    command = Path(sys.executable).with_name("mvptr-data")
    if not command.exists():
        pytest.skip("the mvptr-data command is not installed here")
    from pipelines.cluster import ClusterOptions
    from pipelines.detector_runner import DetectorChoice
    from pipelines.extract_regions import extract_regions

    (tmp_path / "grid.py").write_text(example())
    options = ["--detector", "grid:GridDetector", "--option", "cells=2", "--samples-per-shard", "3"]
    subprocess.run(
        [command, "extract-regions", world.images, tmp_path / "by-command", *options, "--workers", "2", "--quiet"],
        cwd=tmp_path,
        check=True,
        timeout=300,
    )
    name = module(example())
    summary = extract_regions(
        str(world.images),
        str(tmp_path / "inline"),
        detector=DetectorChoice(name=f"{name}:GridDetector", options=(("cells", 2),)),
        samples_per_shard=3,
        cluster=ClusterOptions(cluster="inline"),
        quiet=True,
    )
    assert summary.counts["ok"] == 11 and summary.regions == 44
    tars = sorted(path.name for path in (tmp_path / "inline/regions").glob("*.tar"))
    assert len(tars) == 4
    for tar in tars:
        assert (tmp_path / "inline/regions" / tar).read_bytes() == (tmp_path / "by-command/regions" / tar).read_bytes()


def test_one_that_miscounts_ends_the_run(world: Any, tmp_path: Path, module: Callable[[str], str]) -> None:
    from pipelines.cluster import ClusterOptions
    from pipelines.detector_runner import DetectorChoice
    from pipelines.extract_regions import extract_regions

    with pytest.raises(InputError, match=r"the detector 'made' returned 0 results for \d+ images"):
        extract_regions(
            str(world.images),
            str(tmp_path / "out"),
            detector=DetectorChoice(name=f"{module(GOOD)}:Made"),
            cluster=ClusterOptions(cluster="inline"),
            quiet=True,
        )
