"""One shard of regions: decode, detect and write, each in its thread, with a bound on what waits between them.

In: a planned shard. Out: its tar, its parquet with a row for every input, its receipt. Nothing here knows of a cluster.

* `extract_shard` does a shard anew.
* `retry_shard` does again what failed in it: the next generation holds the old samples and the new, every key in its place.
* `probe_shard` decodes and detects a span of it and writes nothing: does the process survive?
"""

from __future__ import annotations

import contextlib
import hashlib
import time
import warnings
from collections import defaultdict, deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from PIL import Image

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import OK, REGIONS, stem
from mvptr_data.dataset.index import load_index
from mvptr_data.dataset.manifest import load_manifest
from mvptr_data.dataset.plan import read_rows, ref_of
from mvptr_data.dataset.receipts import Receipt, is_finished, read_receipt
from mvptr_data.dataset.records import encode_regions
from mvptr_data.dataset.shards import ShardWriter, shard_writer
from mvptr_data.dataset.shards import read_rows as read_field_rows
from mvptr_data.detectors import Detector, Regions
from mvptr_data.errors import ConfigurationMismatchError, IncompleteError, MvptrError, SampleFault
from mvptr_data.sources.decoding import DecodeOptions, decode_image
from mvptr_data.sources.images import read_image_bytes
from mvptr_data.storage import Store, digest
from pipelines.detector_runner import (
    DetectorChoice,
    DetectorRunner,
    compute_with,
    detector_runner,
    is_out_of_memory,
    reason_of,
)
from pipelines.environment import environment
from pipelines.overlap import in_batches, map_ahead, prefetch


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """All a worker needs to know; a few hundred bytes. `threads` compute, `decode_threads` read and decode images."""

    root: str
    detector: DetectorChoice
    decode: DecodeOptions
    threads: int
    configuration_digest: str
    decode_threads: int = 1


def extract_shard(task: ShardTask, shard: int, poison: Set[int] = frozenset()) -> Receipt:
    """Decode, detect and write one shard; returns its receipt. Idempotent: the same bytes whenever and wherever it runs.

    `poison`: positions of inputs that are known to end the process; they are recorded, not touched.
    """
    store = Store(task.root)
    if is_finished(store, REGIONS.name, shard, task.configuration_digest):
        # Its worker died after it had written the shard and before anyone had heard of it.
        found = read_receipt(store, REGIONS.name, shard)
        assert found is not None, "a finished shard has a receipt"
        return found
    work = _Work(task, poison)
    with (
        contextlib.closing(work.samples(read_rows(store, shard))) as samples,
        _writing(store, shard, work, _new_generation(store, shard)) as (writer, receipts),
    ):
        for sample in samples:
            work.write(writer, sample)
    return receipts[0]


def retry_shard(task: ShardTask, classes: Set[str], shard: int, poison: Set[int] = frozenset()) -> Receipt:
    """Do again the inputs of a finished shard that failed with one of `classes`; returns the shard's receipt.

    Where an input's fate changed, the shard is written as its next generation; where none did, nothing is. In a shard whose
    files are not what its receipt promises every input is done again.
    """
    store = Store(task.root)
    receipt = read_receipt(store, REGIONS.name, shard)
    if receipt is None:
        return extract_shard(task, shard, poison)
    work = _Work(task, poison)
    planned = read_rows(store, shard)
    known: list[dict[str, Any] | None] = [None] * len(planned)
    if _is_sound(store, receipt):
        known = [*read_field_rows(store, receipt.rows.name)]
    again = [old is None or old["error_class"] in classes for old in known]
    with contextlib.closing(work.samples(row for row, wanted in zip(planned, again, strict=True) if wanted)) as retried:
        # What stays as it was is kept until something changes: most retries that change nothing write nothing.
        settled: deque[_Sample] = deque()
        for old in (old for old, wanted in zip(known, again, strict=True) if wanted):
            settled.append(next(retried))
            if old is None or _fate(settled[-1]) != (old["error_class"], old["message"]):
                break
        else:
            return receipt
        with contextlib.ExitStack() as stack:
            writer, receipts = stack.enter_context(_writing(store, shard, work, _new_generation(store, shard)))
            tar = stack.enter_context(store.open(receipt.tar.name)) if not all(again) else None
            for row, old, wanted in zip(planned, known, again, strict=True):
                if wanted:
                    work.write(writer, settled.popleft() if settled else next(retried))
                else:
                    assert old is not None
                    _copy(writer, tar, row["key"], old)
        return receipts[0]


def probe_shard(task: ShardTask, shard: int, span: range, poison: Set[int] = frozenset()) -> int:
    """Decode and detect the inputs at the positions `span`, write nothing; returns how many there were."""
    work = _Work(task, poison)
    rows = read_rows(Store(task.root), shard)[span.start : span.stop]
    return sum(1 for _ in work.samples(rows))


def regions_configuration(detector: Detector, decode: DecodeOptions) -> dict[str, Any]:
    """All that decides the bytes of the regions."""
    return {"detector": detector.configuration(), "decode": decode.configuration(), "feature_dtype": "float16"}


@dataclass(slots=True)
class _Sample:
    """One input on its way: first with a prepared image, then with regions, at last as bytes; a fault stays what it is."""

    key: str
    facts: dict[str, Any]
    image: Any = None
    regions: Regions | None = None
    members: dict[str, bytes] | None = None
    fault: SampleFault | None = None
    decode_seconds: float = 0.0


def _fate(sample: _Sample) -> tuple[str | None, str | None]:
    """Error class and message, as rows have them."""
    return (None, None) if sample.fault is None else (sample.fault.fault_class, sample.fault.message)


class _Work:
    """What the three functions above share: the process's detector, and where the time goes."""

    def __init__(self, task: ShardTask, poison: Set[int]) -> None:
        self.task, self._poison = task, poison
        self._runner: DetectorRunner = detector_runner(task.detector, task.threads)
        if digest(regions_configuration(self._runner.detector, task.decode)) != task.configuration_digest:
            raise ConfigurationMismatchError(
                "a worker's detector is not the one this run was started with",
                "Give all workers the same release, weights and kind of device, and start them again.",
            )
        # Pillow warns of odd metadata in images that are sound.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._started = time.perf_counter()

    def samples(self, rows: Iterable[Mapping[str, Any]]) -> Generator[_Sample, None, None]:
        """Every planned input as the members of its sample or with its fault, in order."""
        ahead = 2 * self._runner.window
        decoded = map_ahead(self._decode, rows, threads=self.task.decode_threads, ahead=ahead)
        with contextlib.closing(prefetch(self._detect(decoded), 2)) as windows:
            for window in windows:
                yield from map(self._encode, window)

    def _decode(self, row: Mapping[str, Any]) -> _Sample:
        """Read, decode and prepare one planned input."""
        start = time.perf_counter()
        sample = _Sample(row["key"], {})
        try:
            if row["fault"] is not None:
                raise SampleFault(row["fault"], row["message"])
            if row["position"] in self._poison:
                raise SampleFault("worker_killed", "the process ended each time this image was tried alone")
            data = read_image_bytes(ref_of(dict(row)))
            sha256 = hashlib.sha256(data)
            sample.facts |= {"sha256": sha256.hexdigest(), "image_id": int.from_bytes(sha256.digest()[:8], "big")}
            image = decode_image(data, self.task.decode)
            sample.facts |= {"width": image.width, "height": image.height, "format": image.format, "mode": image.mode}
            sample.image = self._prepared(image.image)
        except SampleFault as fault:
            sample.fault = fault
        sample.decode_seconds = time.perf_counter() - start
        return sample

    def _prepared(self, image: Image.Image) -> Any:
        """What the detector's `prepare` makes of an image. Raises `SampleFault` for what it raises."""
        try:
            return self._runner.prepare(image)
        except MvptrError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a detector of anyone's may raise
            kind = "out_of_memory" if is_out_of_memory(error) else "detector_error"
            raise SampleFault(kind, reason_of(error)) from None

    def _detect(self, samples: Generator[_Sample, None, None]) -> Generator[list[_Sample], None, None]:
        """Run the detector over windows of images; images are released as soon as they were seen."""
        compute_with(self.task.threads)  # this generator runs in a thread of its own
        with contextlib.closing(samples):
            for window in in_batches(samples, self._runner.window):
                start = time.perf_counter()
                seen = [sample for sample in window if sample.fault is None]
                for sample, found in zip(seen, self._runner.detect([sample.image for sample in seen]), strict=True):
                    sample.image = None
                    if isinstance(found, SampleFault):
                        sample.fault = found
                    else:
                        sample.regions = found
                self.seconds["detect"] += time.perf_counter() - start
                self.seconds["decode"] += sum(sample.decode_seconds for sample in window)
                yield window

    def _encode(self, sample: _Sample) -> _Sample:
        """The sample with its regions as bytes; regions that cannot be stored are the detector's fault."""
        start = time.perf_counter()
        if sample.regions is not None:
            sample.facts["regions"] = len(sample.regions.scores)
            try:
                sample.members = encode_regions(sample.regions, sample.facts["width"], sample.facts["height"])
            except ValueError as error:
                sample.fault = SampleFault("detector_error", str(error))
                del sample.facts["regions"]
            sample.regions = None
        self.seconds["write"] += time.perf_counter() - start
        return sample

    def write(self, writer: ShardWriter, sample: _Sample) -> None:
        """Append a sample, or the fault it has become."""
        start = time.perf_counter()
        if sample.fault is not None:
            writer.add_fault(sample.key, sample.fault, sample.facts)
        else:
            assert sample.members is not None, "a sample is written after it was detected"
            writer.add(sample.key, sample.members, sample.facts)
        self.seconds["write"] += time.perf_counter() - start
        self.seconds["total"] = time.perf_counter() - self._started

    def environment(self) -> dict[str, str]:
        """What may change bytes without being configuration, and when and where; in receipts, outside their digest."""
        versions = {}
        for package in ("torch", "torchvision"):
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions[package] = metadata.version(package)
        return {
            **environment(),
            **versions,
            "threads": str(self.task.threads),
            **({"memory": self._runner.note} if self._runner.note else {}),
        }


@contextlib.contextmanager
def _writing(store: Store, shard: int, work: _Work, generation: int) -> Iterator[tuple[ShardWriter, list[Receipt]]]:
    """The shard's writer; its receipt says how the work went."""
    said: dict[str, str] = {}
    with shard_writer(
        store,
        REGIONS,
        shard,
        configuration_digest=work.task.configuration_digest,
        generation=generation,
        seconds=work.seconds,
        environment=said,
    ) as writing:
        yield writing
        said |= work.environment()


def _is_sound(store: Store, receipt: Receipt) -> bool:
    """Whether a shard's files are, byte for byte, what its receipt promises."""
    try:
        return all(store.sha256(facts.name) == facts.sha256 for facts in (receipt.tar, receipt.rows))
    except FileNotFoundError:
        return False


def _new_generation(store: Store, shard: int) -> int:
    """The generation to write a shard as. What a receipt or the published manifest names is never written over.

    0 where neither ever named a file of the shard: what lies there was left by a run that was killed.
    """
    if not store.exists(layout.receipt(REGIONS.name, shard)) and not _is_published(store, shard):
        return 0
    names = (name.rpartition("/")[2] for name in store.names(REGIONS.name))
    generations = [layout.generation(name) for name in names if layout.shard_number(name) == shard]
    return max((number for number in generations if number is not None), default=-1) + 1


def _is_published(store: Store, shard: int) -> bool:
    try:
        index = load_index(store, load_manifest(store))
    except IncompleteError:
        return False
    except MvptrError:  # nobody can tell
        return True
    return index.of(REGIONS.name, shard) is not None


def _copy(writer: ShardWriter, tar: Any, key: str, old: Mapping[str, Any]) -> None:
    """Append an input's stored fate unchanged: its sample's members from the earlier tar, or its fault."""
    facts = {name: old[name] for name, _ in REGIONS.columns}
    if old["status"] != OK:
        writer.add_fault(key, SampleFault(old["error_class"], old["message"]), facts)
        return
    members = {}
    for member in REGIONS.members:
        tar.seek(old[f"{stem(member)}_offset"])
        members[member] = tar.read(old[f"{stem(member)}_size"])
    writer.add(key, members, facts)
