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
import io
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

import numpy as np
from hostile import CANARY, break_one

from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CAPTION_SCHEMA, UNMATCHED_SCHEMA, CaptionStore, read_bucket
from mvptr_data.dataset.fields import FIELDS, REGIONS, TEXT, FieldState, load_state, store_state
from mvptr_data.dataset.index import load_index
from mvptr_data.dataset.manifest import load_manifest, publish, published_facts
from mvptr_data.dataset.plan import load_plan, read_keys, write_plan
from mvptr_data.dataset.plan import read_rows as read_plan_rows
from mvptr_data.dataset.receipts import Receipt, read_receipt
from mvptr_data.dataset.records import Caption, TextPhrase, encode_regions, encode_text
from mvptr_data.dataset.samples import load_image_ids, load_samples, shard_samples
from mvptr_data.dataset.shards import read_rows, shard_writer
from mvptr_data.dataset.tables import described, write_table
from mvptr_data.detectors import Regions
from mvptr_data.errors import MvptrError, SampleFault
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.sources.images import ImageRef
from mvptr_data.storage import Store, digest
from mvptr_model.stream.reader import ShardReader
from pipelines.cluster import ClusterOptions
from pipelines.collect_garbage import collect_garbage
from pipelines.describe_shards import describe_data_set, render
from pipelines.export_shards import export_shards
from pipelines.inspect_sample import draw_sample, load_sample
from pipelines.list_failures import list_failures
from pipelines.match_captions import unmatched_captions
from pipelines.repair_shards import repair_shards
from pipelines.run_status import run_status
from pipelines.verify_shards import verify_shards

#: Wall seconds for one input, on a machine that does other work too; bytes that one may take beyond what the program has.
SECONDS, MEMORY = 40.0, 4 << 30
SHARDS, PER_SHARD = 2, 3
INLINE = ClusterOptions(cluster="inline")
PHRASES = (("red", "dog"), ("dog", "sit on", "bench"))


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


def build(root: Path) -> None:
    """A small published data set of every kind of file: faults, two captions a picture, two buckets, a vocabulary."""
    store, random = Store.at(root), np.random.default_rng(0)
    keys = [f"a/picture {number}" for number in range(SHARDS * PER_SHARD)]
    refs = [ImageRef(key=key, uri=f"{root}/images/{key}.png") for key in keys]
    plan = write_plan(store, refs, source={"images": f"{root}/images"}, samples_per_shard=PER_SHARD)
    vocabulary = PhraseVocabulary.from_counts([(PHRASES[0], 9), (PHRASES[1], 7)], {"min_sentences": 5})
    buckets = []
    for bucket in range(2):
        write_table(store, layout.caption_bucket(bucket), CAPTION_SCHEMA.empty_table())
        buckets.append(store.sha256(layout.caption_bucket(bucket)))
    captions = CaptionStore(
        configuration={"parser": {"name": "rules"}}, counts={"texts": 2 * len(keys)}, sha256=tuple(buckets)
    )
    captions.save(store)
    matching = described(UNMATCHED_SCHEMA, "captions", matching=digest([plan.digest, captions.digest]))
    write_table(store, layout.UNMATCHED, matching.empty_table())
    text = {
        "plan": plan.digest,
        "captions": captions.digest,
        "vocabulary": vocabulary.digest,
        "counting": dict(vocabulary.configuration),
    }
    states = {
        REGIONS.name: FieldState(configuration={"import": {"format": "features"}}),
        TEXT.name: FieldState(configuration=text),
    }
    receipts: list[Receipt] = []
    for field, state in states.items():
        store_state(store, field, state)
        for shard in range(SHARDS):
            receipts.append(_write_shard(store, field, shard, state, keys, random))
    name = layout.published_vocabulary(0)
    for file in (layout.PHRASE_VOCAB, name):
        vocabulary.save(store, file)
    publish(
        store,
        plan,
        receipts,
        configurations={field: state.configuration for field, state in states.items()},
        samples=[
            shard_samples(store, *(layout.shard_file(field, shard, 0, "parquet") for field in FIELDS))
            for shard in range(SHARDS)
        ],
        facts=published_facts(store, captions, vocabulary, name, unmatched_captions(store, plan, captions) or 0),
    )


def _write_shard(
    store: Store, field: str, shard: int, state: FieldState, keys: list[str], random: np.random.Generator
) -> Receipt:
    with shard_writer(store, FIELDS[field], shard, configuration_digest=state.digest) as (writer, receipts):
        for number, key in enumerate(keys[shard * PER_SHARD :][:PER_SHARD]):
            if field == REGIONS.name and number == 1:
                writer.add_fault(key, SampleFault("torn_image", "it breaks off"))
            elif field == REGIONS.name:
                facts = {"width": 90, "height": 80, "sha256": "0" * 64, "image_id": 7 * (number + 1), "regions": 2}
                writer.add(key, encode_regions(_regions(random), 90, 80), facts)
            else:
                known = TextPhrase(phrase=PHRASES[0], spans=((2, 5), (6, 9)))
                texts = [Caption(id=str(one), text="a red dog, \\u", phrases=(known,)) for one in range(2)]
                writer.add(key, encode_text("train", texts), {"split": "train", "captions": 2, "phrases": 2})
    return receipts[0]


def _regions(random: np.random.Generator) -> Regions:
    return Regions(
        boxes=np.array([[1, 2, 30, 40], [5, 6, 70, 80]], np.float32),
        features=random.standard_normal((2, 2048)).astype(np.float32),
        scores=np.array([0.9, 0.5], np.float32),
        labels=np.array([3, 4], np.int32),
        tags=("dog", "bench"),
        attributes=(("red",), ()),
        attribute_scores=((0.5,), ()),
    )


def _load_all(root: Path, _: Path) -> None:
    """Every loader, each on its own: one that fails keeps the others from nothing. The first error is raised at the end."""
    store = Store.at(root)
    errors: list[MvptrError] = []

    def attempt(load: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return load(store, *arguments)
        except MvptrError as error:
            errors.append(error)
        except FileNotFoundError:  # what these functions promise of a file that is not there
            pass

    if (manifest := attempt(load_manifest)) is not None:
        for load in (load_index, load_samples, load_image_ids):
            attempt(load, manifest)
    attempt(load_plan)
    captions = attempt(CaptionStore.load)
    for bucket, sha256 in enumerate(captions.sha256 if captions else ()):
        attempt(read_bucket, bucket, sha256)
    for name in (layout.PHRASE_VOCAB, layout.published_vocabulary(0)):
        attempt(lambda store, name: PhraseVocabulary.load(store.path(name)), name)
    for shard in range(SHARDS):
        attempt(read_keys, shard)
        attempt(read_plan_rows, shard)
        for field in FIELDS:
            attempt(load_state, field)
            attempt(read_receipt, field, shard)
            attempt(read_rows, layout.shard_file(field, shard, 0, "parquet"))
    if errors:
        raise errors[0]


def _verify(root: Path, _: Path) -> None:
    verify_shards(str(root), cluster=INLINE, quiet=True)


def _read_samples(root: Path, _: Path) -> None:
    with ShardReader(str(root)) as reader:
        reader.vocabulary()
        for number in range(len(reader)):
            assert reader[number].geometry.shape[1] == 6


def _export(root: Path, target: Path) -> None:
    export_shards(str(root), str(target / "webdataset"), form="webdataset", cluster=INLINE, quiet=True)
    export_shards(str(root), str(target / "tsv"), form="vinvl-tsv", features="both", cluster=INLINE, quiet=True)


def _inspect(root: Path, _: Path) -> None:
    draw_sample(load_sample(str(root), "a/picture 0"))


def _describe(root: Path, _: Path) -> None:
    from rich.console import Console

    Console(file=io.StringIO()).print(render(describe_data_set(str(root))))


def _status(root: Path, _: Path) -> None:
    run_status(str(root))
    for field in FIELDS:
        list(list_failures(str(root), field=field))


def _collect_garbage(root: Path, _: Path) -> None:
    collect_garbage(str(root), younger_than=0)


def _repair_and_verify(root: Path, _: Path) -> None:
    """After a repair, verify is sound or the repair has said what is left."""
    repair = repair_shards(str(root), cluster=INLINE, quiet=True)
    if not repair.left:
        findings = verify_shards(str(root), cluster=INLINE, quiet=True).findings
        assert not findings, f"nothing was left, and verify finds {findings[0]}"


READERS: dict[str, Callable[[Path, Path], None]] = {
    "load": _load_all,
    "verify": _verify,
    "read": _read_samples,
    "export": _export,
    "inspect": _inspect,
    "describe": _describe,
    "status": _status,
    "gc": _collect_garbage,
    "repair": _repair_and_verify,
}

if __name__ == "__main__":
    main()
