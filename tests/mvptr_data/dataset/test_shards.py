from __future__ import annotations

import errno
import os
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mvptr_data.dataset.fields import TEXT
from mvptr_data.dataset.receipts import is_finished, read_receipt, write_receipt
from mvptr_data.dataset.records import encode_text
from mvptr_data.dataset.shards import read_rows, shard_writer
from mvptr_data.errors import DamagedFileError, OutputError, SampleFault
from mvptr_data.storage import Store, digest


def write(store: Store, digest: str = "d" * 64, generation: int = 0) -> None:
    with shard_writer(
        store, TEXT, 3, configuration_digest=digest, generation=generation, seconds={"write": 0.12345}
    ) as (writer, _):
        writer.add("a/b.c", encode_text("train", []), {"split": "train", "captions": 2, "phrases": 3})
        writer.add_fault("bad", SampleFault("no_captions", "none"))
        writer.add("z", encode_text(None, []), {"captions": 1, "phrases": 0})


def test_a_shard_has_a_row_for_every_input_and_a_receipt_that_counts(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    write(store)
    receipt = read_receipt(store, "text", 3)
    assert receipt is not None
    assert receipt.counts == {"inputs": 3, "ok": 2, "no_captions": 1} and receipt.faults == {"no_captions": 1}
    assert receipt.totals == {"captions": 3, "phrases": 3}
    assert receipt.seconds == {"write": 0.123}
    assert (receipt.tar.sha256, receipt.tar.bytes) == (store.sha256("text/00003.tar"), store.size("text/00003.tar"))
    rows = read_rows(store, receipt.rows.name)
    assert [(row["position"], row["key"], row["status"], row["error_class"]) for row in rows] == [
        (0, "a/b.c", "ok", None),
        (1, "bad", "fault", "no_captions"),
        (2, "z", "ok", None),
    ]
    raw = store.read("text/00003.tar")
    assert raw[rows[0]["text_offset"] :][: rows[0]["text_size"]] == encode_text("train", [])["text.json"]


def test_the_same_samples_give_the_same_bytes_and_digest(tmp_path: Path) -> None:
    stores = [Store.at(tmp_path / name) for name in "ab"]
    for store in stores:
        write(store)
    for suffix in ("tar", "parquet"):
        assert stores[0].read(f"text/00003.{suffix}") == stores[1].read(f"text/00003.{suffix}")
    one, other = (read_receipt(store, "text", 3) for store in stores)
    assert one is not None and other is not None and one.digest == other.digest


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    with (
        pytest.raises(RuntimeError, match="stop"),
        shard_writer(store, TEXT, 0, configuration_digest="d") as (writer, _),
    ):
        writer.add("a", encode_text(None, []), {})
        raise RuntimeError("stop")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_only_whole_shards_of_this_configuration_are_finished(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    assert not is_finished(store, "text", 3, "d" * 64)
    write(store)
    assert is_finished(store, "text", 3, "d" * 64)
    assert not is_finished(store, "text", 3, "e" * 64)
    tar = tmp_path / "text/00003.tar"
    tar.write_bytes(tar.read_bytes()[:-1])
    assert not is_finished(store, "text", 3, "d" * 64)


def test_a_changed_receipt_is_not_trusted(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    write(store)
    receipt = tmp_path / "text/00003.json"
    receipt.write_text(receipt.read_text().replace('"ok": 2', '"ok": 3'))
    with pytest.raises(DamagedFileError, match=r"00003\.json.*digest"):
        read_receipt(store, "text", 3)
    assert not is_finished(store, "text", 3, "d" * 64)


def test_a_new_generation_has_files_of_its_own(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    write(store)
    before = store.read("text/00003.tar")
    write(store, digest="e" * 64, generation=1)
    receipt = read_receipt(store, "text", 3)
    assert receipt is not None and receipt.tar.name == "text/00003.g1.tar"
    assert store.read("text/00003.tar") == before


def test_members_must_be_the_fields(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"text\.json"),
        shard_writer(Store.at(tmp_path), TEXT, 0, configuration_digest="d") as (writer, _),
    ):
        writer.add("a", {"boxes.npy": b""}, {})


def test_faults_are_filed_under_known_classes_only() -> None:
    with pytest.raises(ValueError, match="no_such_class"):
        SampleFault("no_such_class", "x")


def test_a_receipt_names_no_file_but_its_own(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    write(store)
    receipt = read_receipt(store, "text", 3)
    assert receipt is not None
    write_receipt(store, replace(receipt, tar=replace(receipt.tar, name="../outside.tar")))
    with pytest.raises(DamagedFileError, match=r"00003\.json"):
        read_receipt(store, "text", 3)


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """No file may have more than `limit` bytes: the system refuses to write on (EFBIG), as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("place", ["a sample", "the end", "the table", "the receipt"])
def test_a_full_disk_is_an_error_of_the_output(tmp_path: Path, place: str) -> None:
    """Wherever the room ends: while samples are added, with the last buffer, in the parquet, in the receipt."""
    store, faults = Store.at(tmp_path / "out"), random.Random(1)
    size, limit = {"a sample": (300_000, 60_000), "the end": (7_000, 1_000)}.get(place, (10, 60_000))
    with (
        pytest.raises(OutputError) as caught,
        small_files(limit),
        shard_writer(
            store, TEXT, 0, configuration_digest="d", environment={"note": "x" * (70_000 * (place == "the receipt"))}
        ) as (writer, _),
    ):
        writer.add("a", {"text.json": bytes(size)}, {})
        for number in range(40 if place == "the table" else 0):
            writer.add_fault(f"k{number}", SampleFault("no_captions", faults.randbytes(2_000).hex()))
    assert caught.value.message == f"cannot write to {store.root}: {os.strerror(errno.EFBIG)}"
    assert caught.value.mend.startswith("Make room there") and read_receipt(store, "text", 0) is None
    assert not list(tmp_path.rglob(".*"))


def test_another_disk_that_is_full_is_not_the_output(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="detector's") as caught,
        shard_writer(Store.at(tmp_path), TEXT, 0, configuration_digest="d") as (writer, _),
    ):
        writer.add("a", encode_text(None, []), {})
        raise OSError(errno.ENOSPC, "the detector's temporary file has no room")
    assert caught.value.errno == errno.ENOSPC and not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generation": "1/../../../outside"}, "as generation"),
        ({"shard": "3"}, "as shard"),
        ({"counts": {"inputs": -1, "ok": 0}}, r"as counts\.inputs"),
        ({"counts": {}}, r"lacks counts\.inputs"),
        ({"totals": ["captions"]}, "as totals, not an object"),
        ({"tar": {"name": "text/00003.tar", "bytes": 10**400, "sha256": "0"}}, r"as tar\.bytes"),
        ({"rows": "text/00003.parquet"}, "as rows, not an object"),
        ({"seconds": {"write": "long"}}, r"as seconds\.write"),
        ({"configuration_digest": ["d"]}, "as configuration_digest"),
        ({"tar": {"name": "../../outside.tar", "bytes": 1, "sha256": "0"}}, "digest it promises"),
    ],
)
def test_a_signed_receipt_of_another_form_is_a_typed_error(tmp_path: Path, change: dict, message: str) -> None:
    store = Store.at(tmp_path)
    write(store)
    found = store.read_json("text/00003.json") | change
    promised = {
        name: value for name, value in found.items() if name not in ("version", "digest", "seconds", "environment")
    }
    store.write_json("text/00003.json", found | {"digest": digest(promised)})
    with pytest.raises(DamagedFileError, match=rf"00003\.json .*{message}"):
        read_receipt(store, "text", 3)
    assert not is_finished(store, "text", 3, "d" * 64)
