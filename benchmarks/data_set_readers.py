"""Everything that opens a data set, each as a function of its folder and of one to write to: what the fuzzer runs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from small_data_set import SHARDS

from mvptr_data.dataset import layout
from mvptr_data.dataset.captions import CaptionStore, read_bucket
from mvptr_data.dataset.fields import FIELDS, load_state
from mvptr_data.dataset.index import load_index
from mvptr_data.dataset.manifest import load_manifest
from mvptr_data.dataset.plan import load_plan, read_keys
from mvptr_data.dataset.plan import read_rows as read_plan_rows
from mvptr_data.dataset.receipts import read_receipt
from mvptr_data.dataset.samples import load_image_ids, load_samples
from mvptr_data.dataset.shards import read_rows
from mvptr_data.errors import MvptrError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store
from mvptr_model.stream.reader import ShardReader
from pipelines.cluster import ClusterOptions
from pipelines.collect_garbage import collect_garbage
from pipelines.describe_shards import describe_data_set, render
from pipelines.export_shards import export_shards
from pipelines.inspect_sample import draw_sample, load_sample
from pipelines.list_failures import list_failures
from pipelines.repair_shards import repair_shards
from pipelines.run_status import run_status
from pipelines.verify_shards import verify_shards

INLINE = ClusterOptions(cluster="inline")


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
