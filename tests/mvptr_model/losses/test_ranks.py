"""Two real ranks (gloo) against one that has the whole batch: losses and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor

from mvptr_model.losses.ranks import Peers, drawn, mean
from mvptr_model.losses.vsc import Rivals, contrastive, similarities
from mvptr_model.model import Mvptr
from tests.mvptr_model.random_batches import part, random_batch, small_configuration, small_model

RANKS, EACH = 2, 4
#: Images that come twice: within a rank, and across the two.
IMAGES = [0, 1, 0, 2, 3, 1, 4, 5]
WEIGHTS = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "own V'": {"wpg_negatives": "own"},
    "one of three": {"wpg_best_regions": 3},
    "merged": {"merged_attention": True, "losses": ("mcr_v", "mcr_s", "wpg", "itm", "mlm")},
    "local": {"negatives": "local"},
}

Found = dict[str, Any]


def vsc_of(rows: slice) -> Found:
    """VSC on some of eight pairs, and its gradients."""
    torch.manual_seed(0)
    images, texts = (torch.randn(8, 5, dtype=torch.float64)[rows].requires_grad_() for _ in range(2))
    scale = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    peers = Peers.everyone()
    rivals = Rivals.among(peers, torch.tensor(IMAGES)[rows], torch.tensor(WEIGHTS)[rows])
    loss = contrastive(similarities(images, texts, scale, peers), rivals)
    loss.value.backward()
    return {
        "value": loss.value.detach(),
        "accuracy": loss.accuracy,
        "images": images.grad,
        "texts": texts.grad,
        "scale": scale.grad,
    }


def model_of(rows: slice, changes: dict[str, Any]) -> Found:
    """Both stages of a small model on some of eight pairs, and the gradients."""
    model: Mvptr = small_model(small_configuration(**changes))
    batch = part(random_batch(6, 2 * EACH, images=6, empty=1), rows)
    found: Found = {}
    for stage in (1, 2):
        model.zero_grad()
        outcome = model(batch, stage=stage, seed=1, step=5)
        outcome.total.backward()
        found |= {f"{stage} {name}": value.detach() for name, value in outcome.losses.items()}
        found |= {f"{stage} {name} accuracy": value for name, value in outcome.accuracies.items()}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                found[f"{stage} {name}"] = parameter.grad
    return found


def all_of(rows: slice) -> dict[str, Found]:
    """What is compared; `rows` are this rank's pairs."""
    count = rows.stop - rows.start
    values = torch.arange(8, dtype=torch.float64)[rows].requires_grad_()
    mean(values, torch.tensor(WEIGHTS)[rows]).backward()
    return {
        "mean": {"gradient": values.grad},
        "draws": {"numbers": drawn(count, 3, "test", 1)},
        "vsc": vsc_of(rows),
        **{name: model_of(rows, changes) for name, changes in CONFIGURATIONS.items()},
    }


def work(rank: int, folder: str) -> None:
    """One rank's process."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    torch.save(all_of(slice(rank * EACH, (rank + 1) * EACH)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Found]]:
    """What each of two processes found on its half."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(work, args=(str(folder),), nprocs=RANKS)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.fixture(scope="module")
def whole() -> dict[str, Found]:
    """What this process finds on the whole batch."""
    return all_of(slice(0, RANKS * EACH))


def averaged(ranks: list[dict[str, Found]], what: str, name: str) -> Tensor:
    """What data parallelism makes of the ranks' values."""
    return torch.stack([found[what][name] for found in ranks]).mean(dim=0)


@pytest.mark.parametrize("count", [1, 2, 4, 512])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_weighs_nothing_is_0(monkeypatch: pytest.MonkeyPatch, count: int, dtype: torch.dtype) -> None:
    monkeypatch.setattr(Peers, "everyone", classmethod(lambda cls: cls(0, count)))
    values = torch.tensor([1.0, torch.inf, torch.nan], dtype=dtype, requires_grad=True)
    found = mean(values, torch.zeros(3))
    found.backward()
    assert found.item() == 0 and values.grad is not None and values.grad.tolist() == [0, 0, 0]


def test_vsc(ranks: list[dict[str, Found]], whole: dict[str, Found]) -> None:
    for name in ("value", "accuracy", "scale"):
        torch.testing.assert_close(averaged(ranks, "vsc", name), whole["vsc"][name])
    for name in ("images", "texts"):
        gathered = torch.cat([found["vsc"][name] for found in ranks]) / RANKS
        torch.testing.assert_close(gathered, whole["vsc"][name])


def test_means_and_draws(ranks: list[dict[str, Found]], whole: dict[str, Found]) -> None:
    gradient = torch.cat([found["mean"]["gradient"] for found in ranks]) / RANKS
    torch.testing.assert_close(gradient, whole["mean"]["gradient"])
    assert torch.equal(torch.cat([found["draws"]["numbers"] for found in ranks]), whole["draws"]["numbers"])


@pytest.mark.parametrize("name", [name for name in CONFIGURATIONS if name != "local"])
def test_both_stages(ranks: list[dict[str, Found]], whole: dict[str, Found], name: str) -> None:
    """Every loss, every accuracy, the gradient of every parameter."""
    assert ranks[0][name].keys() == ranks[1][name].keys() == whole[name].keys()
    for value in whole[name]:
        torch.testing.assert_close(averaged(ranks, name, value), whole[name][value], msg=value, rtol=1e-6, atol=1e-9)


def test_local_negatives_are_another_loss(ranks: list[dict[str, Found]], whole: dict[str, Found]) -> None:
    """Each rank compares its own pairs alone; what compares nothing is the same."""
    for loss, same in (("vsc", False), ("mcr_v", True), ("mcr_s", True)):
        torch.testing.assert_close(averaged(ranks, "paper", f"1 {loss}"), whole["local"][f"1 {loss}"])
        close = torch.isclose(averaged(ranks, "local", f"1 {loss}"), whole["local"][f"1 {loss}"])
        assert close.item() == same
