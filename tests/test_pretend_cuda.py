"""The stand-in for a CUDA device punishes what a real one would."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.pretend_cuda import pretend_cuda


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_it_computes_what_the_cpu_computes(mode: Callable[[], AbstractContextManager[None]]) -> None:
    layer, x = nn.Linear(4, 3), torch.randn(5, 4)
    with mode():
        expected = F.relu_(layer(x)).square().detach()
    with pretend_cuda():
        there = layer.to("cuda")
        assert isinstance(there.weight, nn.Parameter) and there.weight.device == torch.device("cuda", 0)
        with mode():
            found = F.relu_(there(x.to("cuda"))).square().detach().cpu()
    assert torch.equal(found, expected)


def test_two_devices_do_not_mix() -> None:
    with pretend_cuda():
        there = torch.arange(3.0, device="cuda")
        with pytest.raises(RuntimeError, match="found cuda:0 and cpu"):
            there + torch.ones(3)
        assert (there + torch.tensor(1.0)).cpu().tolist() == [1, 2, 3]  # a number may come from the host
        with pytest.raises(TypeError, match="convert cuda"):
            there.numpy()


@pytest.mark.parametrize(
    "mixed",
    [
        lambda host, there: host[there],
        lambda host, there: there.index_put_((there,), host),
        lambda host, there: torch.stack([there[0], torch.tensor(1)]),
        lambda host, there: there.index_select(0, torch.tensor(1)),
        lambda host, there: torch.tensor(1).add_(there[0]),
        lambda host, there: torch.where(there > 1, there, host),
        lambda host, there: torch.cat([there, host]),
        lambda host, there: there.index_add(0, there, host),
    ],
)
def test_what_a_device_refuses_is_refused(mixed: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pretend_cuda(), pytest.raises((RuntimeError, IndexError)):
        mixed(torch.arange(3), torch.arange(3, device="cuda"))


def test_whole_numbers_have_no_products_and_there_is_one_device() -> None:
    with pretend_cuda():
        there = torch.arange(3, device="cuda")
        with pytest.raises(NotImplementedError):
            there[None] @ there[:, None]
        with pytest.raises(torch.AcceleratorError, match="invalid device ordinal 1"):
            there.to(torch.device("cuda", 1))


def test_what_was_not_waited_for_is_nonsense() -> None:
    with pretend_cuda() as device:
        there = torch.arange(3, device="cuda")
        late = there.to("cpu", non_blocking=True)
        assert late.tolist() == [113] * 3 and not device.waits
        event = torch.cuda.Event()
        event.record()
        later = (there + 1).to("cpu", non_blocking=True)
        event.synchronize()
        assert late.tolist() == [0, 1, 2] and later.tolist() == [113] * 3
        torch.cuda.synchronize()
        assert later.tolist() == [1, 2, 3] and sum(device.waits.values()) == 2


def test_memory_that_the_device_still_reads_may_not_change() -> None:
    with pretend_cuda() as device:
        pinned = torch.zeros(3).pin_memory()
        there = pinned.to("cuda", non_blocking=True)
        assert not device.waits
        torch.zeros(3).to("cuda", non_blocking=True)  # not pinned: a wait all the same
        torch.zeros(3, 3).pin_memory()[:, :2].to("cuda", non_blocking=True)  # not in one piece: the same
        assert sum(device.waits.values()) == 2
        there = pinned.to("cuda", non_blocking=True)
        pinned[0] = 1
        with pytest.raises(AssertionError, match="while the device still read it"):
            there.sum().item()


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 1],
        lambda x: bool(x.any()),
        lambda x: torch.repeat_interleave(x),
        lambda x: x.cpu(),
        lambda x: x.add_(torch.ones(3, dtype=torch.int64).to("cuda")),
    ],
)
def test_waits_are_counted(wait) -> None:  # type: ignore[no-untyped-def]
    with pretend_cuda() as device:
        x = torch.arange(3, device="cuda")
        _ = (x * 2 + 1).cumsum(0)[1:].clone()
        assert not device.waits and device.is_busy
        wait(x)
        assert sum(device.waits.values()) == 1
        assert not device.waits.keys() - {
            line for line in device.waits if line.startswith("tests/test_pretend_cuda.py:")
        }


def test_memory_has_an_end_and_is_given_back() -> None:
    with pretend_cuda(capacity=4096) as device:
        first = torch.zeros(512, device="cuda")  # 2048 bytes
        view = first[:10]
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            torch.zeros(1024, device="cuda")
        assert device.allocated == device.peak == 2048
        del first
        assert device.allocated == 2048  # the view holds it
        del view
        gc.collect()
        assert device.allocated == 0
        torch.zeros(1024, device="cuda")


def test_threads_begun_inside_see_the_device() -> None:
    found = []
    with pretend_cuda() as device:
        thread = threading.Thread(target=lambda: found.append(torch.ones(2, device="cuda").sum().item()))
        thread.start()
        thread.join()
        assert found == [2] and sum(device.waits.values()) == 1


def test_outside_there_is_no_device() -> None:
    with pretend_cuda():
        there = torch.ones(1, device="cuda")
    with pytest.raises(AssertionError, match="after it is gone"):
        there + 1
