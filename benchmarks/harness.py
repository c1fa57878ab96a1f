"""What all benchmarks share: `--quick` and `--json`, rounds that alternate, and the table.

Other work on the machine only slows down, so jobs take turns and the best round of each counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement; `ratio` is its value over that of the row named `peer`, measured in the same run."""

    name: str
    value: float
    unit: str
    peer: str | None = None
    ratio: float | None = None


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of everything, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to a file")
    return parser


def best_rates(
    jobs: Mapping[str, tuple[Callable[[], object], float]], *, rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Units a second of each job in its best round. A job is a function and the units it does; `clock` gives seconds."""
    best = dict.fromkeys(jobs, 0.0)
    for _ in range(rounds):
        for name, (job, units) in jobs.items():
            start = clock()
            job()
            best[name] = max(best[name], units / (clock() - start))
    return best


def compared(rates: Mapping[str, float], unit: str, peers: Mapping[str, str]) -> list[Row]:
    """A row for each rate, in order; `peers` names, for some of them, the row to compare with."""
    return [
        Row(
            name=name,
            value=round(value, 1),
            unit=unit,
            peer=peers.get(name),
            ratio=round(value / rates[peers[name]], 2) if name in peers else None,
        )
        for name, value in rates.items()
    ]


def report(title: str, rows: Sequence[Row], file: Path | None) -> None:
    """Print the table; write `{"rows": [...]}` where a file is named."""
    print(title)
    width = max(len(row.name) for row in rows)
    for row in rows:
        ratio = f"  {row.ratio:6.2f} x {row.peer}" if row.peer is not None else ""
        print(f"{row.name:<{width}} {row.value:>12,.1f} {row.unit}{ratio}")
    if file is not None:
        file.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1) + "\n", encoding="utf-8")
