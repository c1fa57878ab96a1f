"""What is no checkpoint of the authors' is one clear error, and no pickle is run."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mvptr_data.errors import DamagedFileError, InputError
from mvptr_model.initialisation.official import import_official, official_tensors
from tests.mvptr_model.initialisation.official_form import (
    INPUTS,
    PIECES,
    ROWS,
    SIZE,
    TABLE,
    WORDS,
    checkpoint,
    imported,
    write,
)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write(checkpoint(), tmp_path / "official")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.pop("bert.vis_proj"), "has no bert.vis_proj"),
        (lambda one: one.pop(TABLE), "no such tensor as bert.embeddings.word"),
        (lambda one: one.pop("bert.mul_encoder.layer.5.output.dense.bias"), "has no bert.mul_encoder.layer.5"),
        (lambda one: [one.pop(name) for name in list(one) if "mul_encoder.layer.5" in name], "5 in mul_encoder"),
        (lambda one: [one.pop(name) for name in list(one) if "_encoder" in name], "0 in txt_encoder"),
        (lambda one: one.update({"bert.txt_proj": torch.zeros(SIZE, 5)}), r"txt_proj.weight is \[5, 12\]"),
        (lambda one: one.update({"bert.txt_proj": torch.zeros(SIZE)}), r"\[12\] as bert.txt_proj"),
        (lambda one: one.update({"logit_scale": torch.zeros(3)}), "logit_scale is"),
        (lambda one: one.update({"cls.seq_relationship.weight": torch.zeros(4, SIZE)}), "seq_relationship"),
        (lambda one: one.update({"cls.seq_relationship.weight": torch.tensor(1.0)}), "seq_relationship"),
        (lambda one: one.update({"cls.predictions.decoder.weight": torch.zeros(ROWS, SIZE)}), "decoder"),
        (lambda one: one.update({TABLE: torch.zeros(30, SIZE)}), "has 30 rows, and there are 40 word pieces"),
        (lambda one: one.update({TABLE: torch.zeros(45, SIZE)}), "45 rows, and the phrases' ids go from 7 to 49"),
        (lambda one: one.update({"half_mlm.bias": torch.full((WORDS,), float("inf"))}), "NaN or infinite"),
    ],
)
def test_what_is_no_such_checkpoint(
    change: Callable[[dict[str, Tensor]], object], message: str, tmp_path: Path
) -> None:
    theirs = checkpoint()
    change(theirs)
    with pytest.raises(InputError, match=message):
        imported(write(theirs, tmp_path / "official"), tmp_path)


class Bomb:
    """What a pickle can do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickles_are_refused_and_not_run(source: str, tmp_path: Path) -> None:
    bomb = Bomb(tmp_path / "exploded")
    torch.save({**checkpoint(), "more": bomb}, tmp_path / "zip.bin")
    torch.save({"model": bomb}, tmp_path / "legacy.bin", _use_new_zipfile_serialization=False)
    (tmp_path / "pickle.bin").write_bytes(pickle.dumps(bomb))
    (tmp_path / "text.bin").write_text("hello")
    (tmp_path / "empty.safetensors").touch()
    whole = Path(source, "pytorch_model.bin").read_bytes()
    (tmp_path / "torn.bin").write_bytes(whole[: len(whole) // 2])
    for name in ("zip.bin", "legacy.bin", "pickle.bin", "text.bin", "torn.bin", "empty.safetensors"):
        with pytest.raises(
            DamagedFileError, match=rf"{name}': it is torn, or holds other things, which are not run"
        ) as caught:
            imported(str(tmp_path / name), tmp_path, words=PIECES)
        assert "\n" not in str(caught.value)
    assert not bomb.path.exists()
    torch.save([torch.zeros(3)], tmp_path / "list.bin")
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "huge.bin")
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "sparse.bin")
    for name, message in (
        ("list.bin", "no table of tensors"),
        ("huge.bin", "other form"),
        ("sparse.bin", "other form"),
    ):
        with pytest.raises(DamagedFileError, match=message):
            imported(str(tmp_path / name), tmp_path, words=PIECES)


def test_phrases_that_have_no_place(source: str, tmp_path: Path) -> None:
    found = imported(source, tmp_path)
    twice = replace(found.phrases, official_ids=(40, *found.phrases.official_ids[1:]))
    with pytest.raises(InputError, match="one official id"):
        official_tensors(replace(found, phrases=twice))
    far = replace(found.phrases, official_ids=(10**9, *found.phrases.official_ids[1:]))
    with pytest.raises(InputError, match="ids go to 1,000,000,000"):
        official_tensors(replace(found, phrases=far))
    with pytest.raises(InputError, match="ids go from 31 to 1,000,000,000"):
        import_official(source, far, inputs=INPUTS)
