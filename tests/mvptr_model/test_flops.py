"""Counted operations against torch's own counter; devices' peaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.model_batch import made_batch
from mvptr_model.batch import Batch
from mvptr_model.configuration import ModelConfiguration
from mvptr_model.flops import batch_flops, peak_flops
from mvptr_model.model import Mvptr
from tests.mvptr_model.random_batches import part

SMALL = {
    "word_rows": 1100,
    "phrase_rows": 60,
    "wpg_layer": 1,
    "hidden_size": 64,
    "heads": 2,
    "feed_forward_size": 128,
    "layers": 2,
}
MERGED = {"merged_attention": True, "losses": ("mcr_v", "mcr_s", "wpg", "itm", "mlm")}
#: Changes; `of`: the stages, where not both learn something.
VARIETY: dict[str, dict[str, Any]] = {
    "paper": {},
    "own V', grounded last": {"wpg_negatives": "own", "wpg_layer": 2},
    "merged": MERGED,
    "MLM alone, no phrases": {"inputs": ("w", "r", "t"), "losses": ("mlm",), "of": (2,)},
}


def same_lengths(configuration: ModelConfiguration, pairs: int) -> Batch:
    """Copies of one sample, as if of many pictures: nothing is padded, not even for batched products."""
    one = made_batch(1, configuration)
    return replace(part(one, [0] * pairs), image_ids=torch.arange(pairs))


@pytest.mark.parametrize(
    ("name", "stage"), [(name, stage) for name in VARIETY for stage in VARIETY[name].get("of", (1, 2))]
)
def test_as_torch_counts(name: str, stage: int) -> None:
    """Within 1 %: places asked for are padded to the most of any sequence."""
    changes = {setting: value for setting, value in VARIETY[name].items() if setting != "of"}
    configuration = ModelConfiguration.preset("paper", **{**SMALL, **changes})
    model, batch = Mvptr(configuration).train(), same_lengths(configuration, 4)
    with FlopCounterMode(display=False) as counter:
        model(batch, stage=stage).total.backward()
    counted = batch_flops(configuration, batch, stage=stage)
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert counted == batch_flops(configuration, batch.without_padding(), stage=stage)


def test_padding_costs_nothing_and_sequences_do() -> None:
    configuration = ModelConfiguration.preset("paper", **SMALL)
    few, many = (batch_flops(configuration, made_batch(pairs, configuration), stage=2) for pairs in (4, 8))
    assert 1.8 < many / few < 2.2
    alone, of_eight = (batch_flops(configuration, made_batch(4, configuration), stage=1, ranks=n) for n in (1, 8))
    assert alone < of_eight < 1.01 * alone  # more negatives to compare with


def test_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_flops(torch.device("cpu")) is None
    for name, peak in (
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("A new one", None),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert peak_flops(torch.device("cuda")) == peak
