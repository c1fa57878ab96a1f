"""What a run has counted so far, and how many failures it may count."""

from __future__ import annotations

import re
import threading
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

from mvptr_data.dataset.receipts import Receipt
from mvptr_data.errors import FailureBudgetError, InputError


@dataclass(frozen=True, slots=True)
class FailureBudget:
    """At most `limit` failed inputs, or with `percent` that share of all; made by `parse_budget`."""

    limit: Decimal
    percent: bool

    def allowed(self, inputs: int) -> int:
        return int(inputs * self.limit / 100) if self.percent else int(self.limit)

    def __str__(self) -> str:
        return f"{self.limit}%" if self.percent else f"{self.limit}"


def parse_budget(text: str) -> FailureBudget:
    """`100` (inputs) or `0.5%` (of all inputs). Raises `InputError`."""
    found = re.fullmatch(r"\s*(\d+|\d*\.\d+(?=%)|\d+\.?(?=%))\s*(%?)\s*", text)
    if found is None or (found[2] and Decimal(found[1]) > 100):
        raise InputError(f"{text!r} is no number of failures", "Give a whole number, or a percentage such as 0.5%.")
    return FailureBudget(Decimal(found[1]), bool(found[2]))


class Tally:
    """Sums over receipts as they come in, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.regions = 0
        self.shards = 0

    def add(self, receipt: Receipt, sign: int = 1) -> None:
        """Count a shard; with sign -1, no longer."""
        with self._lock:
            for name, count in receipt.counts.items():
                self.counts[name] += sign * count
            self.regions += sign * receipt.totals["regions"]
            self.shards += sign

    @property
    def faults(self) -> dict[str, int]:
        """Failed inputs by class."""
        with self._lock:
            return {name: count for name, count in self.counts.items() if name not in ("inputs", "ok") and count}

    def check(self, budget: FailureBudget | None, inputs: int, pardoned: int = 0) -> None:
        """Raises `FailureBudgetError` where more than `budget` allows of `inputs` have failed, `pardoned` ones not counted."""
        faults = self.faults
        if budget is None or sum(faults.values()) - pardoned <= budget.allowed(inputs):
            return
        listed = ", ".join(f"{name} {count:,}" for name, count in sorted(faults.items(), key=lambda item: -item[1]))
        raise FailureBudgetError(
            f"{sum(faults.values()):,} of {inputs:,} inputs failed ({listed}), more than --max-failures {budget}",
            "Look at them with `mvptr-data failures`; run again with a larger budget, or mend and use --retry-failed.",
        )
