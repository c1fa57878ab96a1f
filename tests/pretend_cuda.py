"""A CUDA device that is not there: what code for one does, seen on a machine without one.

    with pretend_cuda(capacity=2**28) as device:
        detector = VinvlDetector(..., device=torch.device("cuda"))
        detector.detect(pictures)
    assert device.allocated == 0

Inside the block tensors can be sent to `cuda`. They say that they are there, and their numbers are computed on the CPU. What a
real device would punish is punished here:

* tensors of two devices in one operation are an error;
* what is copied to the host without waiting is nonsense there until something has waited for it;
* what is copied from the host without waiting may not change there until then, and must be pinned not to be a wait itself;
* memory has an end, beyond which torch's own `OutOfMemoryError` is raised; what is still referred to counts.

`waits` counts, by line of the project, where the host stood still until the device was done, `stalls` those after which the
device stood still until the host had sent it something. What cannot be seen here is what
kernels compute, and how fast, nor gradients: torch's engine asks the driver for the device before it goes backwards.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nested._internal import sdpa
from torch.nn.attention import SDPBackend
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

ops = torch.ops.aten
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
PROJECT = Path(__file__).resolve().parents[1]

#: Operations whose result's size, or the host's next step, depends on numbers that only the device knows.
WAITING = {
    ops._local_scalar_dense.default,
    ops.nonzero.default,
    ops.masked_select.default,
    ops.equal.default,
    ops.is_nonzero.default,
    ops.bincount.default,
    ops._unique2.default,
    ops.unique_dim.default,
    ops.unique_consecutive.default,
    ops.repeat_interleave.Tensor,
}
#: They are for floating-point numbers.
PRODUCTS = {ops.mm.default, ops.bmm.default, ops.addmm.default, ops.baddbmm.default, ops.dot.default, ops.mv.default}
#: What nested tensors attend with, on a device.
ATTENTION = {ops._flash_attention_forward.default, ops._efficient_attention_forward.default}
#: Operations that take indices from either device.
INDEXING = {ops.index.Tensor, ops.index_put.default, ops.index_put_.default}


class OnDevice(Tensor):
    """A tensor said to be on the device; `numbers` holds what it is made of, on the CPU."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> OnDevice:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return]
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            layout=numbers.layout,
            device=CUDA,
        )

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _are_plain(types):
            raise AssertionError(f"{func} is used on the pretended device after it is gone")
        return NotImplemented

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.numbers!r})"


class PretendedCuda:
    """The device's account: see the head of this file."""

    def __init__(self, capacity: int | None) -> None:
        self.capacity = capacity
        #: Bytes in use, and the most that were.
        self.allocated = self.peak = 0
        #: How often the host waited, by line; and how often the device had nothing more to do when the host went on.
        self.waits: Counter[str] = Counter()
        self.stalls: Counter[str] = Counter()
        #: Operations sent to the device, and how many of them the host knows to be done.
        self.issued = self.done = 0
        self._users: Counter[int] = Counter()  # tensors by storage
        self._pinned: dict[int, Any] = {}
        self._late: list[tuple[int, Callable[[], object]]] = []

    @property
    def is_busy(self) -> bool:
        """Whether there is work that the host has not waited for."""
        return self.issued > self.done

    def pin(self, tensor: Tensor) -> Tensor:
        """A copy in memory that the device reads by itself."""
        copy = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype).copy_(tensor)
        self._pinned[copy.untyped_storage()._cdata] = copy.untyped_storage()
        return copy

    def is_pinned(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._pinned

    def wait(self, until: int | None = None) -> None:
        """The host stands still until so many operations are done, all by default."""
        line, until = _line(), self.issued if until is None else until
        self.waits[line] += 1
        self.stalls[line] += until >= self.issued
        self.catch_up(until)

    def forget(self) -> None:
        """Count waits and stalls from here on."""
        self.waits.clear()
        self.stalls.clear()

    def catch_up(self, until: int) -> None:
        self.done = max(self.done, until)
        for at, deliver in [*self._late]:
            if at <= self.done:
                deliver()
        self._late = [entry for entry in self._late if entry[0] > self.done]

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """One operation, on the host or on the device."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
        wanted = None if kwargs.get("device") is None else torch.device(kwargs["device"])
        if not here and (wanted is None or wanted.type != "cuda"):
            return func(*args, **kwargs)
        self.issued += 1
        if func in ATTENTION:
            return self._attended(func, args, kwargs)
        if func is ops._to_copy.default and bool(here) != (wanted is None or wanted.type == "cuda"):
            return self._moved(args[0], kwargs)
        if func is ops.copy_.default and len(here) == 1:
            return self._overwritten(*args)
        self._check(func, tensors, args, kwargs)
        if wanted is not None:
            kwargs["device"] = CPU
        bare_args, bare_kwargs = tree_map(_bare, (args, kwargs))
        result = func(*bare_args, **bare_kwargs)
        if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            return result
        self._reserve(result, [_bare(tensor) for tensor in tensors])
        # A view of an ordinary tensor is one, in inference mode too.
        views = here and not here[0].is_inference() and any(_is_view(part) for part in func._schema.arguments)
        with torch.inference_mode(False) if views else contextlib.nullcontext():
            wrapped = tree_map(lambda leaf: self._wrapped(leaf) if isinstance(leaf, Tensor) else leaf, result)
        return return_and_correct_aliasing(func, args, kwargs, wrapped)

    def _check(self, func: Any, tensors: list[Tensor], args: Any, kwargs: dict[str, Any]) -> None:
        strangers = [tensor for tensor in tensors if not isinstance(tensor, OnDevice)]
        if func in INDEXING:  # indices may come from the host
            allowed = isinstance(args[0], OnDevice) and not any(
                stranger.dim() for stranger in strangers if stranger in args[2:]
            )
            strangers = [stranger for stranger in strangers if stranger.dim() > 0]
        else:  # a number of the host's may be an operand; it cannot be written
            operands = torch.Tag.pointwise in func.tags and not any(stranger.dim() for stranger in strangers)
            allowed = not strangers or (operands and isinstance(args[0], OnDevice) >= _is_written(func))
            strangers = []
        if not allowed:
            raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu, in {func}")
        if func in PRODUCTS and not args[-1].is_floating_point():
            raise NotImplementedError(f"{func} is not implemented for {args[-1].dtype} on CUDA")
        masks = func in INDEXING and any(index is not None and index.dtype == torch.bool for index in args[1])
        waits = func in WAITING and kwargs.get("output_size") is None
        if waits or masks or strangers or func.name() == "torchvision::nms":
            self.wait()

    def _attended(self, func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The fused kernels' result, sequence by sequence: queries [Q, h, d], keys and values [M, h, d], or [1, ...] each."""
        queries, keys, values = (_bare(part) for part in args[:3])
        begins, others = (_bare(part).tolist() for part in args[3:6] if isinstance(part, Tensor))
        dropout = args[7] if func is ops._flash_attention_forward.default else args[8]
        assert not dropout, "dropout draws numbers that only a device has"
        found = []
        for (start, stop), (first, last) in zip(pairwise(begins), pairwise(others), strict=True):
            parts = queries[..., start:stop, :, :], keys[..., first:last, :, :], values[..., first:last, :, :]
            seen = F.scaled_dot_product_attention(
                *(part.transpose(-3, -2) for part in parts), scale=kwargs.get("scale")
            )
            found.append(seen.transpose(-3, -2))
        # What only the way back needs, and the longest sequences, are made up.
        output, unused = self._wrapped(torch.cat(found, dim=-3)), self._wrapped(torch.empty(0))
        if func is ops._flash_attention_forward.default:
            return output, unused, unused, unused, unused
        return output, unused, unused, unused, 0, 0

    def _moved(self, source: Tensor, kwargs: dict[str, Any]) -> Tensor:
        """From the host to the device, or back."""
        waits = not kwargs.pop("non_blocking", False)
        kwargs.pop("pin_memory", None)
        bare = torch.ops.aten._to_copy.default(_bare(source), **{**kwargs, "device": CPU})
        if not isinstance(source, OnDevice):
            self._reserve(bare, [])
            if waits or not self.is_pinned(source) or not source.is_contiguous():
                self.wait()
            else:
                self._expect_unchanged(source)
            return self._wrapped(bare)
        if waits:
            self.wait()
            return bare
        late = torch.full_like(bare, 113)  # nonsense, until it has been waited for
        self._late.append((self.issued, lambda: late.copy_(bare)))
        return late

    def _overwritten(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        """`copy_` from the host to the device, or back."""
        host = source if isinstance(target, OnDevice) else target
        if not non_blocking or not self.is_pinned(host):
            _bare(target).copy_(_bare(source))
            if host.dim() > 0 or host is target:
                self.wait()
        elif host is source:
            _bare(target).copy_(source)
            self._expect_unchanged(source)
        else:
            found = _bare(source).clone()
            target.fill_(113)
            self._late.append((self.issued, lambda: target.copy_(found)))
        return target

    def _expect_unchanged(self, source: Tensor) -> None:
        before = source.clone()

        def look() -> None:
            assert torch.equal(source, before), "memory was written while the device still read it"

        self._late.append((self.issued, look))

    def _reserve(self, result: Any, known: list[Tensor]) -> None:
        """Raises `torch.OutOfMemoryError` where `result` brings more memory than there is."""
        old = {tensor.untyped_storage()._cdata for tensor in known}
        leaves = [leaf.untyped_storage() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        new = sum(storage.nbytes() for storage in leaves if storage._cdata not in old)
        if self.capacity is not None and self.allocated + new > self.capacity:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {new} bytes. GPU 0 has a total capacity of {self.capacity} bytes "
                f"of which {self.capacity - self.allocated} bytes are free."
            )

    def _wrapped(self, numbers: Tensor) -> OnDevice:
        storage = numbers.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self._users[key]:
            self.allocated += size
            self.peak = max(self.peak, self.allocated)
        self._users[key] += 1
        tensor = OnDevice(numbers)
        weakref.finalize(tensor, self._released, key, size)
        return tensor

    def _released(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self.allocated -= size


class _Operations(TorchDispatchMode):
    """Sends every operation to the device's account. A mode belongs to one thread."""

    def __init__(self, device: PretendedCuda) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _are_plain(types):
            return NotImplemented
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                result = func.decompose(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        return self._device.run(func, args, dict(kwargs or {}))


class _Calls(TorchFunctionMode):
    """Calls of torch's that look for a real device before any operation is sent to one."""

    def __init__(self, device: PretendedCuda) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        args, kwargs = tree_map(_with_index, (args, kwargs))
        if func is Tensor.tolist and isinstance(args[0], OnDevice):
            return args[0].cpu().tolist()
        if func is Tensor.numpy and isinstance(args[0], OnDevice):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        if func is Tensor.pin_memory:
            return self._device.pin(args[0])
        if func is Tensor.is_pinned:
            return self._device.is_pinned(args[0])
        if func is Tensor.new_tensor:
            device = kwargs.pop("device", args[0].device)
            return torch.tensor(args[1], dtype=kwargs.get("dtype", args[0].dtype)).to(device)
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if kwargs.get("pin_memory"):
            del kwargs["pin_memory"]
            return self._device.pin(func(*args, **kwargs))
        return func(*args, **kwargs)


@contextlib.contextmanager
def pretend_cuda(*, capacity: int | None = None) -> Iterator[PretendedCuda]:
    """One CUDA device with `capacity` bytes of memory, without end by default, for this thread and those it starts."""
    device = PretendedCuda(capacity)
    run_thread = threading.Thread.run

    def run_with_device(thread: threading.Thread) -> None:
        with _Operations(device), _Calls(device):
            run_thread(thread)

    class Event:
        """`torch.cuda.Event`: how much of the work is before it."""

        def __init__(self, *_: object, **__: object) -> None:
            self._at = 0

        def record(self, stream: object = None) -> None:
            self._at = device.issued

        def query(self) -> bool:
            return self._at <= device.done

        def synchronize(self) -> None:
            if not self.query():
                device.wait(self._at)

    stands_in = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: "a pretended device",
        "empty_cache": lambda: None,
        "synchronize": lambda _=None: device.wait(),
        "Event": Event,
        "current_stream": lambda _=None: None,
    }
    overwriting = torch.__future__.get_overwrite_module_params_on_conversion()
    with contextlib.ExitStack() as stack:
        for name, stand_in in stands_in.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, stand_in))
        stack.enter_context(mock.patch.object(sdpa, "_select_sdp_backend", _attention_kernel))
        stack.enter_context(mock.patch.object(threading.Thread, "run", run_with_device))
        torch._C._ensureCUDADeviceGuardSet()  # type: ignore[attr-defined]
        # Parameters change their class with their device.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwriting)
        stack.enter_context(_Operations(device))
        stack.enter_context(_Calls(device))
        yield device


def _attention_kernel(query: Tensor, *_: object, **__: object) -> SDPBackend:
    """Which kernel torch would take for nested tensors: the one for half precision, or the one for fp32."""
    half = query.dtype in (torch.float16, torch.bfloat16)
    return SDPBackend.FLASH_ATTENTION if half else SDPBackend.EFFICIENT_ATTENTION


def _bare(leaf: Any) -> Any:
    return leaf.numbers if isinstance(leaf, OnDevice) else leaf


def _are_plain(types: Any) -> bool:
    """Whether an operation is for plain tensors; one for nested tensors comes back as what they are made of."""
    return all(kind in (Tensor, torch.nn.Parameter, OnDevice) for kind in types)


def _with_index(leaf: Any) -> Any:
    """`cuda` as `cuda:0`: torch would ask the driver which device is meant. There is no other one."""
    if isinstance(leaf, torch.device) and leaf.type == "cuda" and leaf.index:
        raise torch.AcceleratorError(f"CUDA error: invalid device ordinal {leaf.index}")
    return CUDA if leaf in ("cuda", torch.device("cuda")) and isinstance(leaf, str | torch.device) else leaf


def _is_written(func: Any) -> bool:
    """Whether an operation's first argument is where its result goes."""
    info = func._schema.arguments[0].alias_info
    return info is not None and info.is_write


def _is_view(argument: Any) -> bool:
    return argument.alias_info is not None and not argument.alias_info.is_write


def _line() -> str:
    """The innermost line of the project that is being run, as `path:number code`."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path != Path(__file__).resolve() and path.is_relative_to(PROJECT) and ".venv" not in path.parts:
            return f"{path.relative_to(PROJECT)}:{frame.lineno} {frame.line}"
    return "?"
