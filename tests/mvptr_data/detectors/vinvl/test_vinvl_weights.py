"""Weights files in every form they come in, and broken in every way."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mvptr_data.detectors.vinvl.architecture import X152_C4
from mvptr_data.detectors.vinvl.model import empty_model
from mvptr_data.detectors.vinvl.weights import COPY, ORIGINAL, expected_shapes, load_weights
from mvptr_data.errors import DamagedFileError, InputError
from tests.mvptr_data.detectors.vinvl.small import SMALL, small_state, write_safetensors, write_weights

Change = Callable[[dict[str, Tensor]], object]
CONV = "backbone.body.layer1.0.conv1.weight"


def state_of(path: Path) -> dict[str, Tensor]:
    return load_weights(path, SMALL).model.state_dict()


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, Tensor]:
    return state_of(write_weights(tmp_path / "plain.pth"))


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_full_network_has_the_names_of_the_released_file() -> None:
    """Reference page, "State dict": 841 entries with the copy of res5."""
    shapes = expected_shapes(empty_model(X152_C4), X152_C4)
    copied = [name for name in shapes if name.startswith(ORIGINAL)]
    assert len(copied) == 50 and len(shapes) + len(copied) == 841
    assert shapes["backbone.body.stem.conv1.weight"] == (64, 3, 7, 7)
    assert shapes["backbone.body.layer3.35.conv2.weight"] == (1024, 32, 3, 3)
    assert shapes["backbone.body.layer2.0.downsample.1.running_var"] == (512,)
    assert shapes["roi_heads.box.feature_extractor.head.layer4.0.downsample.0.weight"] == (2048, 1024, 1, 1)
    assert shapes["roi_heads.box.feature_extractor.head.layer4.2.conv2.weight"] == (2048, 64, 3, 3)
    assert shapes["roi_heads.box.predictor.bbox_pred.weight"] == (6380, 2048)
    assert shapes["attribute.predictor.fc_attr.weight"] == (512, 2304)
    assert shapes["rpn.anchor_generator.cell_anchors.0"] == (15, 4)


@pytest.mark.parametrize("form", ["bare", "prefixed", "without copy", "before torch 1.6", "safetensors"])
def test_every_form_gives_the_same_network(tmp_path: Path, plain: dict[str, Tensor], form: str) -> None:
    state, path = small_state(), tmp_path / "weights.pth"
    if form == "bare":
        torch.save(state, path)
    elif form == "prefixed":
        torch.save({"model": {f"module.{name}": value for name, value in state.items()}}, path)
    elif form == "without copy":
        torch.save({"model": {name: value for name, value in state.items() if not name.startswith(COPY)}}, path)
    elif form == "before torch 1.6":
        torch.save({"model": state}, path, _use_new_zipfile_serialization=False)
    else:
        path = write_safetensors(tmp_path / "weights.safetensors")
    assert same(state_of(path), plain)


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "weights.pth")
    assert load_weights(path, SMALL).digest == sha256(path.read_bytes()).hexdigest()


def test_half_precision_files_load_as_fp32(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "weights.pth", {name: value.half() for name, value in small_state().items()})
    assert {value.dtype for value in state_of(path).values()} == {torch.float32}


def widen(state: dict[str, Tensor]) -> None:
    state[CONV] = torch.zeros(9, 8, 1, 1)


def spoil_copy(state: dict[str, Tensor]) -> None:
    name = f"{COPY}head.layer4.0.conv3.weight"
    state[name] = state[name] + 1e-6


def spoil_variance(state: dict[str, Tensor]) -> None:
    state["backbone.body.stem.bn1.running_var"] = torch.zeros(8)


def count(state: dict[str, Tensor]) -> None:
    state["backbone.body.stem.bn1.weight"] = torch.ones(8, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(CONV), rf"lacks '{CONV}'\."),
        (lambda state: [state.pop(CONV), state.pop("rpn.head.conv.bias")], "lacks .* and 1 more"),
        (lambda state: state.update({"rpn.head.extra": torch.zeros(1)}), "unexpectedly, 'rpn.head.extra'"),
        (widen, rf"'{CONV}' in .* is float32 \(9, 8, 1, 1\), the network has \(8, 8, 1, 1\)"),
        (count, r"is int64 \(8,\), the network has \(8,\)"),
        (spoil_copy, "is not equal to its original"),
        (spoil_variance, "not finite for 'backbone.stem.scale'"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, change: Change, message: str) -> None:
    state = small_state()
    change(state)
    with pytest.raises(DamagedFileError, match=message) as caught:
        load_weights(write_weights(tmp_path / "odd.pth", state), SMALL)
    assert "odd.pth" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["torn.pth", "torn.safetensors", "old.pth"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_a_torn_file_is_named(tmp_path: Path, name: str, part: float) -> None:
    path = tmp_path / name
    if name.endswith("safetensors"):
        write_safetensors(path)
    else:
        torch.save({"model": small_state()}, path, _use_new_zipfile_serialization=name == "torn.pth")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(DamagedFileError, match=name) as caught:
        load_weights(path, SMALL)
    assert "\n" not in str(caught.value)


class Loaded:
    """Unpickling this would run code of the file's choosing."""

    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('the file ran code')",))


def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"model": {CONV: Loaded()}}, path)
    with pytest.raises(DamagedFileError, match=r"evil\.pth"):
        load_weights(path, SMALL)


@pytest.mark.parametrize("content", [{"model": {"a": 1}}, {"model": 3}, [1, 2], {"weights": {}}])
def test_other_content_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(DamagedFileError, match="holds no table of tensors"):
        load_weights(path, SMALL)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read weights"):
        load_weights(tmp_path / "none.pth", SMALL)
