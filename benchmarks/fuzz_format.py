"""Broken and hostile data sets by the thousand: every reader must end with a typed error or a result.

    python benchmarks/fuzz_format.py --inputs 300
    python benchmarks/fuzz_format.py --inputs 20000 --seed 7 --json fuzz.json

An input is a small data set with one file broken (`hostile.py`), by its seed alone. A worker process opens it with everything
that opens data sets. A finding is: an exception that is not of `mvptr_data.errors`, or names no file; a process that died; more
than `SECONDS` for one input; more than `MEMORY` bytes; anything opened, listed, made or removed outside the data set and the
folder that an export goes to (an audit hook sees it), or a file beside the data set that is not as it was. Links that stand in
the folder are followed, as all programs do, so none is put there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from data_set_readers import READERS
from hostile import CANARY, break_one
from small_data_set import build

from mvptr_data.errors import MvptrError

#: Wall seconds for one input, on a machine that does other work too; bytes that one may take beyond what the program has.
SECONDS, MEMORY = 40.0, 4 << 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the first input; the others count up from it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write inputs and findings to a file")
    parser.add_argument("--worker", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker)
        return
    findings: list[dict[str, Any]] = []
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed, result in run_inputs(Path(folder), range(given.seed, given.seed + given.inputs)):
            outcomes.update(result.get("outcomes", {}))
            for finding in result["findings"]:
                findings.append({"seed": seed, "broken": result["broken"], "finding": finding})
                print(f"seed {seed}: {result['broken']}\n  {finding}", flush=True)
    print(", ".join(f"{what} {count}" for what, count in outcomes.most_common()))
    print(f"inputs {given.inputs}, findings {len(findings)}")
    if given.json:
        given.json.write_text(
            json.dumps({"inputs": given.inputs, "outcomes": outcomes, "findings": findings}, indent=1)
        )


def run_inputs(folder: Path, seeds: range) -> Iterator[tuple[int, dict[str, Any]]]:
    """(seed, what came of it), in order; a worker that dies or hangs is replaced."""
    worker = Worker(folder)
    try:
        for seed in seeds:
            result = worker.result_of(seed)
            yield seed, result
            if "died" in result:
                worker.stop()
                worker = Worker(folder)
    finally:
        worker.stop()


class Worker:
    """A process that works on inputs one by one."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, __file__, "--worker", str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self._lines.get()  # it is ready

    def result_of(self, seed: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            print(seed, file=self._process.stdin, flush=True)
        said: dict[str, Any] = {"broken": "?"}
        while "findings" not in said:
            try:
                line = self._lines.get(timeout=SECONDS)
            except queue.Empty:
                return said | {"findings": [f"no answer after {SECONDS:g} s in {said.get('reader')}"], "died": True}
            if not line:
                status = self._process.wait()
                return said | {"findings": [f"the process ended with {status} in {said.get('reader')}"], "died": True}
            said |= json.loads(line)
        return said

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")


def work(folder: Path) -> None:
    """Answer seeds from the standard input with lines of JSON: what was broken, which reader runs, and at last the findings."""
    place = Path(tempfile.mkdtemp(dir=folder))
    sound, beside = place / "sound", place / CANARY
    build(sound)
    beside.mkdir()
    (beside / "secret").write_text("nobody reads this")
    watch = Watch(place)
    answers, sys.stdout = sys.stdout, sys.stderr  # what a reader prints is no answer
    print(file=answers, flush=True)
    for line in sys.stdin:
        result = one_input(place, int(line), watch, lambda said: print(json.dumps(said), file=answers, flush=True))
        print(json.dumps(result), file=answers, flush=True)


def one_input(place: Path, seed: int, watch: Watch, say: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Break the data set by `seed` and open it with every reader."""
    root, target = place / "broken", place / "target"
    for path in (root, target):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(place / "sound", root)
    broken = break_one(root, Random(seed))
    say({"broken": broken})
    findings, outcomes = [], Counter[str]()
    for name, read in READERS.items():
        say({"reader": name})
        before = _peak()
        watch.allowed = (root, target)
        try:
            read(root, target)
            outcomes["result"] += 1
        except MvptrError as error:
            outcomes[type(error).__name__] += 1
            if str(root) not in str(error) and not any(part in str(error) for part in ("sample", "shard")):
                findings.append(f"{name}: names no file: {error}")
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = next(
                (f for f in reversed(traceback.extract_tb(error.__traceback__)) if ".venv" not in f.filename), frame
            )
            findings.append(
                f"{name}: {type(error).__name__}: {str(error)[:200]} at {Path(where.filename).name}:{where.lineno}"
            )
        finally:
            watch.allowed = ()
        if (taken := _peak() - before) > MEMORY:
            findings.append(f"{name}: took {taken:,} bytes")
        findings += [f"{name}: {event}" for event in watch.events]
        watch.events.clear()
    if [path.name for path in place.iterdir() if path.name not in ("sound", "broken", "target", CANARY)]:
        findings.append("something was made beside the data set")
    if (place / CANARY / "secret").read_text() != "nobody reads this" or len([*(place / CANARY).iterdir()]) != 1:
        findings.append("the folder beside was written to")
    return {"findings": findings, "outcomes": outcomes}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Watch:
    """Notes what is opened, listed, made or removed outside `allowed`, while that is not empty; the program's own files are."""

    def __init__(self, place: Path) -> None:
        self.allowed: tuple[Path, ...] = ()
        self.events: list[str] = []
        own = (
            sys.prefix,
            sys.base_prefix,
            str(Path(__file__).resolve().parents[1]),
            "/proc/",
            "/sys/",
            "/usr/",
            "/dev/null",
        )
        self._own = tuple(one for one in own if not str(place).startswith(one))
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.allowed:
            return
        if event in ("subprocess.Popen", "os.system", "socket.connect", "socket.getaddrinfo"):
            self.events.append(f"{event} {arguments[:2]!r}"[:200])
        elif event in (
            "open",
            "os.listdir",
            "os.scandir",
            "os.mkdir",
            "os.remove",
            "os.rename",
            "os.rmdir",
            "os.truncate",
        ):
            paths = arguments[:2] if event == "os.rename" else arguments[:1]
            for path in paths:
                if isinstance(path, str | bytes) and not self._is_allowed(str(Path(_text(path)).absolute())):
                    self.events.append(f"{event} {path!r}"[:200])

    def _is_allowed(self, path: str) -> bool:
        resolved = str(_without_dots(path))
        return resolved.startswith((*(str(root) for root in self.allowed), *self._own))


def _text(path: str | bytes) -> str:
    return path.decode(errors="replace") if isinstance(path, bytes) else path


def _without_dots(path: str) -> Path:
    return Path(os.path.normpath(path))


if __name__ == "__main__":
    main()
