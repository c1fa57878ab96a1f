"""The house has three floors, and imports only run down (docs/decisions.md, "Floors")."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {"mvptr_data": 0, "mvptr_model": 1, "pipelines": 2}
#: What the ground floor leaves to those above it.
NOT_ON_THE_GROUND = {"dask", "distributed", "click", "rich", "deepspeed", "matplotlib"}
#: The parts of the ground floor that the model may use: what is on disk, never how it was made.
FOR_THE_MODEL = (
    "mvptr_data.dataset",
    "mvptr_data.phrases",
    "mvptr_data.errors",
    "mvptr_data.storage",
    "mvptr_data.tensor_files",
    "mvptr_data.transfers",
    "mvptr_data.version",
)


def imports(path: Path) -> Iterator[str]:
    """The full names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            yield node.module or ""


FILES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def test_there_are_floors() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(FLOORS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        top = name.split(".")[0]
        assert FLOORS.get(top, 0) <= FLOORS[floor], f"{path} imports {name} from above"
        if floor == "mvptr_data":
            assert top not in NOT_ON_THE_GROUND, f"{path} imports {name} on the ground floor"
        if floor == "mvptr_model" and top == "mvptr_data":
            assert name.startswith(FOR_THE_MODEL), f"{path} imports {name}; the model reads {FOR_THE_MODEL} alone"


def test_tests_mirror_the_tree() -> None:
    """A test file stands where the module or package it tests stands."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder = path.relative_to(ROOT / "tests").parent
        assert folder == Path() or (ROOT / folder).is_dir(), f"{path} mirrors no folder"
