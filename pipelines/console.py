"""What a command says while it works: a progress bar on a terminal, plain lines elsewhere, and a log beside the output."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mvptr_data.errors import MvptrError
from mvptr_data.storage import Store

#: Seconds between two plain progress lines.
PLAIN_INTERVAL = 5.0


class Reporter:
    """Speaks for one run of a command. Lines go to standard error, so that standard output stays for results."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self._lines: list[str] = []
        self._started = datetime.now(UTC)
        self._store: Store | None = None
        self._stem = ""
        self._log: Path | None = None

    def say(self, line: str) -> None:
        """A line for the user and the log."""
        self.record(line)
        if not self._quiet:
            self._console.print(line, markup=False)

    @contextlib.contextmanager
    def step(self, title: str, total: int, unit: str) -> Iterator[Step]:
        """A part of the work that counts `total` units; 0 where nobody knows how many."""
        step = Step(self, title, total, unit)
        if self._quiet or not self._console.is_terminal or total == 0:
            yield step
        else:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=self._console, transient=True) as bar:
                step.bar, step.task = bar, bar.add_task(title, total=total)
                yield step
        step.finish()

    def record(self, line: str) -> None:
        """A line for the log alone."""
        # A path that is not UTF-8 must not end the run for its log's sake.
        stamped = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}".encode(errors="backslashreplace").decode()
        self._lines.append(stamped)
        if self._log is not None:
            # A full disk ends the run by its own error, not by its log's.
            with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as file:
                file.write(stamped + "\n")

    def keep_log(self, store: Store, command: str) -> str | None:
        """Keep the log in `logs/` beside the output from now on, what was said before included.

        Returns the name for the Dask report of this run (None where the output is not local). A command calls this once it
        knows that its input is sound, so that a mistyped path leaves no folder behind.
        """
        # Processes of several machines or containers may have the same number.
        self._stem = f"logs/{command}-{self._started:%Y%m%dT%H%M%S}-{os.getpid()}-{secrets.token_hex(2)}"
        if not store.is_local:
            self._store = store
            return None
        log = Path(store.path(f"{self._stem}.log"))
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(f"{line}\n" for line in self._lines), encoding="utf-8")
        self._log = log
        return store.path(f"{self._stem}.html")

    def close(self) -> None:
        """Upload the log of a run whose output is not local; a local one is on disk line by line."""
        if self._store is not None:
            with contextlib.suppress(OSError, MvptrError):  # a store that can only be read is no reason to fail
                lines = "".join(f"{line}\n" for line in self._lines)
                self._store.write(f"{self._stem}.log", lines.encode())


class Step:
    """Progress of one step; made by `Reporter.step`."""

    def __init__(self, reporter: Reporter, title: str, total: int, unit: str) -> None:
        self._reporter, self._title, self._total, self._unit = reporter, title, total, unit
        self._done = 0
        self._start = self._spoken = time.monotonic()
        self.bar: Progress | None = None
        self.task: TaskID | None = None

    def advance(self, count: int = 1) -> None:
        """`count` more units are done."""
        self._done += count
        if self.bar is not None and self.task is not None:
            self.bar.advance(self.task, count)
        elif time.monotonic() - self._spoken >= PLAIN_INTERVAL and (self._done < self._total or not self._total):
            self._spoken = time.monotonic()
            rate = self._done / (self._spoken - self._start)
            if not self._total:
                self._reporter.say(f"{self._title}: {self._done:,} {self._unit} so far, {pace(rate)}")
                return
            left = (self._total - self._done) / rate if rate else 0.0
            self._reporter.say(
                f"{self._title}: {self._done:,} of {self._total:,} {self._unit}, {pace(rate)}, {duration(left)} left"
            )

    def finish(self) -> None:
        """Say what was done and how fast."""
        seconds = time.monotonic() - self._start
        rate = f", {pace(self._done / seconds)}" if seconds > 0.5 and self._done else ""
        self._reporter.say(f"{self._title}: {self._done:,} {self._unit} in {duration(seconds)}{rate}")


@contextlib.contextmanager
def reporting(*, quiet: bool) -> Iterator[Reporter]:
    """A reporter for the block; how the block ended goes into its log."""
    reporter = Reporter(quiet=quiet)
    reporter.record(f"$ {' '.join(sys.argv)}")
    try:
        yield reporter
    except BaseException as error:
        reporter.record(f"ended by {type(error).__name__}: {error}")
        raise
    finally:
        reporter.close()


def duration(seconds: float) -> str:
    """`95` -> `1 min 35 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def pace(rate: float) -> str:
    """A rate a second in the unit that tells it: `46.2/s`, `1.8/min`, `3.0/h`."""
    for factor, unit in ((1, "s"), (60, "min")):
        if rate * factor >= 1:
            return f"{rate * factor:,.1f}/{unit}"
    return f"{rate * 3600:,.1f}/h"
