"""The weights file: what it holds, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mvptr_data.abstract_scenes import COLORS, KINDS, SIZES
from mvptr_data.detectors.compact.model import initial_model
from mvptr_data.detectors.compact.names import Names
from mvptr_data.detectors.compact.weights import BUNDLED_WEIGHTS, load_weights, save_weights
from mvptr_data.errors import DamagedFileError, FormatVersionError, InputError

NAMES = Names(kinds=("cat", "dog"), colors=("red", "blue", "green"), sizes=("small", "large"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, initial_model(NAMES, torch.Generator().manual_seed(1)), NAMES, {"seed": 1})
    return path


def test_the_bundled_file_is_small_and_names_the_drawn_world() -> None:
    assert BUNDLED_WEIGHTS.stat().st_size <= 9_000_000
    trained = load_weights(BUNDLED_WEIGHTS)
    assert trained.names == Names(kinds=KINDS, colors=COLORS, sizes=SIZES)
    assert "compact.train" in str(trained.training["command"]) and isinstance(trained.training["seed"], int)
    with safe_open(BUNDLED_WEIGHTS, framework="pt") as file:
        kernel, bias = (file.get_slice(f"roi.kind.{part}").get_dtype() for part in ("weight", "bias"))
    assert (kernel, bias) == ("F16", "F32")


def test_a_model_comes_back_to_half_precision(saved: Path) -> None:
    model = initial_model(NAMES, torch.Generator().manual_seed(1)).eval()
    trained = load_weights(saved)
    assert trained.names == NAMES and trained.training == {"seed": 1}
    back = trained.model.state_dict()
    for name, value in model.state_dict().items():
        expected = value.half().float() if value.is_floating_point() and value.ndim > 1 else value
        assert torch.equal(back[name], expected), name


def test_equal_models_give_equal_bytes(saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    save_weights(again, initial_model(NAMES, torch.Generator().manual_seed(1)), NAMES, {"seed": 1})
    assert again.read_bytes() == saved.read_bytes()
    assert load_weights(again).digest == load_weights(saved).digest


def rewritten(saved: Path, path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]) -> Path:
    """A copy of `saved` at `path` after `change(metadata, tensors)`."""
    with safe_open(saved, framework="pt") as file:
        described = json.loads(file.metadata()["mvptr_data"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    change(described, tensors)
    save_file(tensors, path, metadata={"mvptr_data": json.dumps(described)})
    return path


def test_another_version_is_refused(saved: Path, tmp_path: Path) -> None:
    path = rewritten(saved, tmp_path / "new", lambda described, _: described.update(version=2))
    with pytest.raises(FormatVersionError, match="version 2, this release reads 1"):
        load_weights(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda described, _: described.pop("names"),
        lambda described, _: described["names"].update(kinds=["cat", "cat"]),
        lambda described, _: described["names"].update(colors=[]),
        lambda described, _: described["names"]["sizes"].append("huge"),  # one name more than the tensor has rows
        lambda _, tensors: tensors.pop("roi.kind.bias"),
        lambda _, tensors: tensors.update(stray=torch.zeros(1)),
    ],
)
def test_names_and_tensors_must_fit(saved: Path, tmp_path: Path, change: Callable[..., object]) -> None:
    with pytest.raises(DamagedFileError):
        load_weights(rewritten(saved, tmp_path / "changed", change))


def test_what_is_no_weights_file_is_refused(saved: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    torn.write_bytes(saved.read_bytes()[:-100])
    foreign = tmp_path / "foreign"
    save_file({"x": torch.zeros(1)}, foreign)
    for path in (tmp_path / "absent", torn, foreign):
        with pytest.raises(InputError, match=path.name):
            load_weights(path)
