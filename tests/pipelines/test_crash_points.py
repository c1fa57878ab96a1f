"""Cut short between any two file operations, by a kill or by a loss of power: nothing is lost, doubled or torn.

The steps of a data set's life (extraction, vocabulary, publication, a retry, another vocabulary, images added) are run once on a
recorded disk. From the record follows what every crash leaves: after a kill all that was done; after a loss of power only what
was synced, files by their own descriptor and names by their folder's. Each such disk is made, looked at as a reader would, and
gone on with by the same commands.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mvptr_data.dataset import layout
from mvptr_data.dataset.index import load_index
from mvptr_data.dataset.manifest import load_manifest
from mvptr_data.errors import DamagedFileError
from mvptr_data.storage import Store
from mvptr_model.stream.reader import ShardReader
from pipelines.cluster import ClusterOptions
from pipelines.extract_regions import add_images, extract_regions
from pipelines.phrase_vocab import build_phrase_vocab
from pipelines.verify_shards import verify_shards
from pipelines.write_shards import write_shards

INLINE = ClusterOptions(cluster="inline")
PICTURES, ADDED = 4, 2
#: A path of a disk -> its bytes.
Files = dict[str, bytes]


@dataclass(eq=False)
class Node:
    """A file or folder. Of a file `kept` are the bytes that were synced; of a folder, the names."""

    folder: bool
    names: dict[str, Node] = field(default_factory=dict)
    kept_names: dict[str, Node] = field(default_factory=dict)
    kept: bytes | None = None

    def files(self, *, powered: bool, path: str = "") -> Iterator[tuple[str, bytes]]:
        """What is there after a kill (`powered`), or after a loss of power."""
        for name, node in sorted((self.names if powered else self.kept_names).items()):
            where = f"{path}/{name}" if path else name
            if node.folder:
                yield from node.files(powered=powered, path=where)
            else:
                yield where, node.kept if node.kept is not None else b"torn"


class Disk:
    """Follows what a process does to the files below `root`. `crash` is called before each operation."""

    def __init__(self, root: Path, crash: Callable[[Disk], None]) -> None:
        self.root, self.top, self._crash = root, Node(folder=True), crash

    def files(self, *, powered: bool) -> Files:
        return dict(self.top.files(powered=powered))

    def node(self, path: str) -> Node:
        node = self.top
        for name in filter(None, path.split("/")):
            node = node.names[name]
        return node

    @contextmanager
    def recorded(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        def relative(path: Any, dir_fd: int | None = None) -> str | None:
            """The path below the root; None for others, for locks and logs, and for what is open already."""
            if isinstance(path, int):
                return None
            folder = Path() if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink()
            full = os.path.abspath(folder / path)  # noqa: PTH100 - resolve() follows links
            inside = full.removeprefix(str(self.root))
            return None if inside == full or inside.startswith(("/locks", "/logs")) else inside.strip("/")

        def watch(module: Any, name: str, note: Callable[..., None]) -> None:
            real = getattr(module, name)

            def watched(path: Any, *given: Any, **named: Any) -> Any:
                inside = relative(path, named.get("dir_fd"))
                if inside is None:
                    return real(path, *given, **named)
                self._crash(self)
                result = real(path, *given, **named)
                note(inside, *given)
                return result

            patch.setattr(module, name, watched)

        def opened(path: str, mode: str = "r", *_: Any) -> None:
            if "x" in mode or "w" in mode:
                self.node(path.rpartition("/")[0]).names[path.rpartition("/")[2]] = Node(folder=False)

        def renamed(path: str, to: Any) -> None:
            node = self.node(path.rpartition("/")[0]).names.pop(path.rpartition("/")[2])
            target = relative(to)
            assert target is not None, to
            self.node(target.rpartition("/")[0]).names[target.rpartition("/")[2]] = node

        def made(path: str, *_: Any) -> None:
            self.node(path.rpartition("/")[0]).names[path.rpartition("/")[2]] = Node(folder=True)

        def removed(path: str, *_: Any) -> None:
            self.node(path.rpartition("/")[0]).names.pop(path.rpartition("/")[2])

        def synced(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            inside = relative(path)
            if inside is not None:
                self._crash(self)
                node = self.node(inside)
                node.kept_names = dict(node.names)
                node.kept = None if node.folder else path.read_bytes()

        with monkeypatch.context() as patch:
            watch(io, "open", opened)
            watch(os, "replace", renamed)
            watch(os, "mkdir", made)
            watch(os, "unlink", removed)
            watch(os, "rmdir", removed)
            patch.setattr(os, "fsync", synced)
            yield


@dataclass(frozen=True)
class Life:
    """The steps of a data set's life, and the pictures that there are at each."""

    world: Path

    def arrange(self, step: int) -> None:
        """The pictures as they are at a step: the last of the first ones is empty until step 3, others come at step 6."""
        shutil.rmtree(self.world / "images", ignore_errors=True)
        (self.world / "images").mkdir()
        for number in range(PICTURES if step < 6 else PICTURES + ADDED):
            picture = f"{number:06d}.jpg"
            data = (self.world / "all" / picture).read_bytes()
            (self.world / "images" / picture).write_bytes(b"" if number == PICTURES - 1 and step < 3 else data)

    def steps(self, out: str) -> list[Callable[[], object]]:
        images, captions = str(self.world / "images"), [str(self.world / "captions.jsonl")]

        def extract(retry: list[str] | None) -> object:
            return extract_regions(images, out, samples_per_shard=2, retry_failed=retry, cluster=INLINE, quiet=True)

        def vocabulary(least: int) -> object:
            return build_phrase_vocab(captions, out, min_sentences=least, cluster=INLINE, quiet=True)

        def publish() -> object:
            return write_shards(out, cluster=INLINE, quiet=True)

        return [
            lambda: extract(None),
            lambda: vocabulary(2),
            publish,
            lambda: extract(["empty_file"]),
            publish,
            lambda: (vocabulary(1), publish()),
            lambda: (add_images(images, out, cluster=INLINE, quiet=True), publish()),
        ]


@dataclass(frozen=True)
class Crash:
    """What a crash leaves, in which step; `power`: the power was lost."""

    step: int
    power: bool
    files: Files = field(repr=False)


@dataclass(frozen=True)
class Recorded:
    life: Life
    crashes: list[Crash]
    #: After each step: what readers read, None before anything was published; and at last what the index promises.
    read: list[Any]
    promised: Any


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    from mvptr_data.abstract_scenes import write_world

    world, out = tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("recorded") / "out"
    write_world(world, count=PICTURES + ADDED, seed=5)
    (world / "images").rename(world / "all")
    life, crashes, read = Life(world), {}, []
    step = 0

    def crash(disk: Disk) -> None:
        for power in (False, True):
            files = {path: data for path, data in disk.files(powered=not power).items() if not path.endswith(".tmp")}
            state = hashlib.sha256(
                repr([(path, hashlib.sha256(data).digest()) for path, data in files.items()]).encode()
            )
            crashes.setdefault((step, state.digest()), Crash(step, power, files))

    out.mkdir()
    disk = Disk(out, crash)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for step, do in enumerate(life.steps(str(out))):
            life.arrange(step)
            with disk.recorded(monkeypatch):
                do()
                crash(disk)
            there = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
            there = {path: data for path, data in there.items() if not path.startswith(("locks/", "logs/"))}
            assert disk.files(powered=True) == there, "the record is what was done"
            assert there.items() <= disk.files(powered=False).items(), (
                "what a step that has ended leaves is on the disk"
            )
            read.append(samples(out))
    return Recorded(life, list(crashes.values()), read, promised(out))


def samples(out: Path) -> Any:
    """All that a reader reads; None where nothing is published."""
    if not (out / layout.MANIFEST).exists():
        return None
    with ShardReader(str(out)) as reader:
        return [(one.key, one.boxes.tobytes(), one.features.tobytes(), one.regions, one.captions) for one in reader]


def promised(out: Path) -> list[tuple[Any, ...]]:
    """The shards of each field by their digests, whatever generation they are."""
    store = Store.at(out)
    return [(row.field, row.shard, row.sha256, row.rows_sha256) for row in load_index(store, load_manifest(store))]


def gone_on_with(recorded: Recorded, crash: Crash, out: Path) -> bool:
    """Make the disk that a crash left and go on from there; returns whether readers could read what was published before."""
    for path, data in crash.files.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(data)
    out.mkdir(exist_ok=True)
    before, readable = recorded.read[max(0, crash.step - 1)], True
    try:
        assert samples(out) in (before if crash.step else None, recorded.read[crash.step])
    except DamagedFileError:
        readable = False
    steps = recorded.life.steps(str(out))
    for step in range(crash.step, len(steps)):
        recorded.life.arrange(step)
        steps[step]()
        assert samples(out) == recorded.read[step], crash
    assert promised(out) == recorded.promised, crash
    assert verify_shards(str(out), quiet=True).findings == (), crash
    return readable


def go_on(recorded: Recorded, crashes: list[Crash], folder: Path) -> list[Crash]:
    """The crashes after which what was published could not be read until the step was done again."""
    unreadable = []
    for number, crash in enumerate(crashes):
        out = folder / f"crash-{number}"
        if not gone_on_with(recorded, crash, out):
            unreadable.append(crash)
        shutil.rmtree(out)
    return unreadable


def test_no_crash_loses_doubles_or_tears_a_sample(recorded: Recorded, tmp_path: Path) -> None:
    """A few of the crashes; the next test goes through all."""
    go_on(recorded, Random(0).sample(recorded.crashes, 8), tmp_path)


@pytest.mark.slow
def test_no_crash_at_all_loses_doubles_or_tears_a_sample(recorded: Recorded, tmp_path: Path) -> None:
    unreadable = go_on(recorded, recorded.crashes, tmp_path)
    # Index, the three files of the samples and the manifest take their names one right after another, four times.
    assert len(unreadable) <= 4 * 4, [(crash.step, crash.power) for crash in unreadable]
