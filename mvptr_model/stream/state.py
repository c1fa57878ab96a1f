"""Where a stream stands: seven facts, from which any number of ranks goes on exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from mvptr_data.dataset.fields import configuration_differences
from mvptr_data.errors import ConfigurationMismatchError, DamagedFileError, FormatVersionError
from mvptr_model.stream.order import ORDER_VERSION, Order

_REMEDY = "Go on with the data and the settings that the state was saved with, or begin anew without it."


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """`samples` slots of epoch `epoch` were given out, over all ranks: whole global batches, from the first on.

    The number of ranks and of workers is not part of it: another number takes other parts of the same batches.
    """

    version: int = ORDER_VERSION
    order_digest: str
    seed: int
    epoch: int
    global_batch: int
    canonical_streams: int
    samples: int

    @classmethod
    def at(cls, order: Order, epoch: int, batches: int) -> StreamState:
        """After so many batches of an epoch; after the last one, that is the start of the next."""
        epoch, batches = (epoch + 1, 0) if batches == order.batches else (epoch, batches)
        return cls(**_named(order), epoch=epoch, samples=batches * order.settings.global_batch)

    @classmethod
    def load(cls, stored: Mapping[str, Any], order: Order) -> StreamState:
        """The state in a checkpoint's dictionary, for this order.

        Raises `FormatVersionError` for another version, `DamagedFileError` for what is no state, and
        `ConfigurationMismatchError` with the difference for that of another data set or other settings.
        """
        if stored.get("version") != ORDER_VERSION:
            raise FormatVersionError(
                f"the stream's state has order version {stored.get('version')!r}; this release reads {ORDER_VERSION}",
                "Go on with the release that saved it.",
            )
        names = {field.name for field in fields(cls)}
        whole = all(type(stored.get(name)) is int and stored[name] >= 0 for name in ("epoch", "samples"))
        if stored.keys() != names or not whole:
            raise DamagedFileError(f"{dict(stored)!r} is not the state of a stream", _REMEDY)
        expected = _named(order)
        if differences := configuration_differences({name: stored[name] for name in expected}, expected):
            raise ConfigurationMismatchError(
                f"the stream's state is of another order (saved -> now): {'; '.join(differences)}", _REMEDY
            )
        state = cls(**stored)
        if state.samples % state.global_batch or state.batches >= order.batches:
            raise DamagedFileError(
                f"{state.samples} samples are no place in an epoch of {order.batches} batches", _REMEDY
            )
        return state

    @property
    def batches(self) -> int:
        """Global batches of the epoch that were given out."""
        return self.samples // self.global_batch

    def to_dict(self) -> dict[str, Any]:
        """Integers and strings only, for a checkpoint read with `weights_only=True`, or JSON."""
        return asdict(self)


def _named(order: Order) -> dict[str, Any]:
    settings = order.settings
    return {
        "order_digest": order.digest,
        "seed": settings.seed,
        "global_batch": settings.global_batch,
        "canonical_streams": settings.canonical_streams,
    }
