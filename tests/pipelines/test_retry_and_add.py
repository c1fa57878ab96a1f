"""Trying again what failed, adding images, counting failures: places stay, bytes are those of a run without trouble."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mvptr_data.dataset.receipts import read_receipt
from mvptr_data.errors import ConfigurationMismatchError, FailureBudgetError, IncompleteError, InputError
from mvptr_data.storage import Store
from pipelines.cluster import ClusterOptions
from pipelines.collect_garbage import collect_garbage
from pipelines.extract_regions import add_images, extract_regions
from pipelines.list_failures import list_failures
from pipelines.run_status import render_status, run_status
from pipelines.runs.budget import parse_budget
from pipelines.verify_shards import verify_shards
from pipelines.write_shards import write_shards

INLINE = ClusterOptions(cluster="inline")
SHARDS = ("00000", "00001", "00002")


def extract(images: Path, out: Path, **options: object):  # type: ignore[no-untyped-def]
    return extract_regions(str(images), str(out), samples_per_shard=4, cluster=INLINE, quiet=True, **options)


@pytest.fixture
def spoiled(world, tmp_path: Path) -> Path:  # type: ignore[no-untyped-def]
    """The world's pictures, three of them spoiled: one torn and one of no format in the first shard, one empty in the last."""
    folder = tmp_path / "images"
    shutil.copytree(world.images, folder)
    first, second, *_, last = sorted(folder.glob("*.jpg"))
    first.write_bytes(first.read_bytes()[:3000])
    second.write_text("no picture")
    last.write_bytes(b"")
    return folder


def mend(folder: Path, world, *places: int) -> None:  # type: ignore[no-untyped-def]
    pictures = sorted(folder.glob("*.jpg"))
    for place in places:
        shutil.copy(world.images / pictures[place].name, pictures[place])


def rows(out: Path, shard: int) -> list[dict[str, object]]:
    receipt = read_receipt(Store.at(out), "regions", shard)
    assert receipt is not None
    return pq.read_table(out / receipt.rows.name).to_pylist()


def test_a_retry_keeps_every_place_and_ends_in_the_bytes_of_a_run_without_trouble(
    world, spoiled: Path, published: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    extract(spoiled, out)
    places = [[row["key"] for row in rows(out, shard)] for shard in range(3)]
    old = {name: (out / f"regions/{name}.tar").read_bytes() for name in SHARDS}

    mend(spoiled, world, 0, 10)
    summary = extract(spoiled, out, retry_failed=["torn_image", "empty_file"])
    assert summary.shards_written == 2 and summary.counts["ok"] == 10
    assert [[row["key"] for row in rows(out, shard)] for shard in range(3)] == places
    assert {row["error_class"] for row in rows(out, 0)} == {None, "not_an_image"}
    assert {name: (out / f"regions/{name}.tar").read_bytes() for name in SHARDS} == old
    for suffix in ("tar", "parquet"):
        last = (out / f"regions/00002.g1.{suffix}").read_bytes()
        assert last == (published / f"regions/00002.{suffix}").read_bytes()
    assert not list((out / "regions").glob("00001.g*"))

    mend(spoiled, world, 1)
    assert extract(spoiled, out, retry_failed=["not_an_image"]).counts["ok"] == 11
    assert (out / "regions/00000.g2.tar").read_bytes() == (published / "regions/00000.tar").read_bytes()


def test_a_retry_that_changes_nothing_writes_nothing(spoiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extract(spoiled, out)
    before = sorted(path.name for path in (out / "regions").iterdir())
    summary = extract(spoiled, out, retry_failed=["torn_image", "not_an_image", "empty_file"])
    assert summary.shards_written == 0 and summary.counts["ok"] == 8
    assert sorted(path.name for path in (out / "regions").iterdir()) == before


def test_a_retry_never_trusts_a_damaged_earlier_shard(world, spoiled: Path, published: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    extract(spoiled, out)
    tar = out / "regions/00002.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    mend(spoiled, world, 10)
    extract(spoiled, out, retry_failed=["empty_file"])
    assert (out / "regions/00002.g1.tar").read_bytes() == (published / "regions/00002.tar").read_bytes()


def test_only_classes_that_may_pass_are_tried_again(spoiled: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="duplicate_key is no class"):
        extract(spoiled, tmp_path / "out", retry_failed=["duplicate_key"])


def test_readers_see_a_retry_when_it_is_published_and_gc_takes_the_rest(
    world, published: Path, data_set: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    images, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(world.images, images)
    victim = sorted(images.glob("*.jpg"))[5]
    victim.write_bytes(b"")
    extract(images, out)
    for name in ("captions", "phrase_vocab.parquet"):
        (shutil.copytree if (published / name).is_dir() else shutil.copy)(published / name, out / name)
    assert write_shards(str(out), cluster=INLINE, quiet=True).samples == 10
    shutil.copy(world.images / victim.name, victim)
    extract(images, out, retry_failed=["empty_file"])

    assert verify_shards(str(out), cluster=INLINE, quiet=True).samples == 10  # what is published is as it was
    assert collect_garbage(str(out), younger_than=0).names == ()  # and needed
    text = {path.name: path.read_bytes() for path in (out / "text").glob("*.tar")}
    summary = write_shards(str(out), cluster=INLINE, quiet=True)
    assert (summary.samples, summary.shards_written) == (11, 0)
    assert {path.name: path.read_bytes() for path in (out / "text").glob("*.tar")} == text
    (out / "regions/.00001.tar.1-ff.tmp").write_bytes(b"left")
    young = collect_garbage(str(out))
    assert (young.names, young.young) == ((), 3) and (out / "regions/00001.tar").exists()
    os.utime(out / "regions/00001.tar", (0, 0))
    assert collect_garbage(str(out), dry_run=True).names == ("regions/00001.tar",)
    found = collect_garbage(str(out), dry_run=True, younger_than=0)
    assert found == collect_garbage(str(out), younger_than=0)
    assert set(found.names) == {"regions/.00001.tar.1-ff.tmp", "regions/00001.parquet", "regions/00001.tar"}
    assert not verify_shards(str(out), cluster=INLINE, quiet=True).findings
    assert collect_garbage(str(out), younger_than=0).names == ()


def test_added_images_get_shards_of_their_own_and_what_was_published_stays_sound(
    world, data_set: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    from mvptr_data.abstract_scenes import write_world

    before = {path.name: path.read_bytes() for path in (data_set / "regions").iterdir()}
    more = tmp_path / "more"
    write_world(more, count=6, seed=99)
    for path in sorted((more / "images").glob("*.jpg")):
        path.rename(path.with_name(f"new-{path.name}"))
    first = sorted(world.images.glob("*.jpg"))[0]
    shutil.copy(first, more / "images" / first.name)  # a known key from elsewhere

    def add():  # type: ignore[no-untyped-def]
        return add_images(str(more / "images"), str(data_set), cluster=INLINE, quiet=True)

    summary = add()
    assert (summary.plan.shards, summary.plan.images, summary.shards_written) == (5, 18, 2)
    assert summary.counts["ok"] == 17 and summary.counts["duplicate_key"] == 1
    assert {name: (data_set / "regions" / name).read_bytes() for name in before} == before
    assert verify_shards(str(data_set), cluster=INLINE, quiet=True).samples == 11
    assert add().shards_written == 0  # nothing new

    shutil.copy(first, more / "images" / "grown.jpg")
    assert add().plan.images == 19
    assert (
        extract_regions(
            str(more / "images"), str(data_set), samples_per_shard=4, cluster=INLINE, quiet=True
        ).shards_kept
        == 6
    )
    write_shards(str(data_set), cluster=INLINE, quiet=True)
    result = verify_shards(str(data_set), cluster=INLINE, quiet=True)
    assert not result.findings and result.samples == 11  # the new ones have no captions


def test_a_tar_that_was_half_there_is_completed_by_adding_it_again(world, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    archive, out = tmp_path / "images.tar", tmp_path / "out"
    pictures = sorted(world.images.glob("*.jpg"))[:4]
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path in pictures:
            tar.add(path, path.name)
    with tarfile.open(archive) as tar:
        second = tar.getmember(pictures[1].name)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: second.offset_data + second.size // 2])
    assert extract(archive, out).counts["ok"] == 1

    def add():  # type: ignore[no-untyped-def]
        return add_images(str(archive), str(out), cluster=INLINE, quiet=True)

    assert add().plan.shards == 1  # as torn as before: nothing new
    archive.write_bytes(whole)
    summary = add()
    assert summary.counts["ok"] == 4 and summary.plan.images == 6  # the torn member and tar keep their rows
    names = {row["key"] for shard in (0, 1) for row in rows(out, shard) if row["status"] == "ok"}
    assert names == {path.stem for path in pictures}
    plan = (out / "plan/plan.json").read_bytes()
    assert add().shards_written == 0 and (out / "plan/plan.json").read_bytes() == plan


def test_adding_needs_a_data_set_and_its_detector(world, data_set: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from pipelines.detector_runner import DetectorChoice

    with pytest.raises(IncompleteError, match="has no plan"):
        add_images(str(world.images), str(tmp_path / "nothing"), cluster=INLINE, quiet=True)
    other = DetectorChoice(options=(("score_threshold", 0.6),))
    plan = (data_set / "plan/plan.json").read_bytes()
    (tmp_path / "one").mkdir()
    shutil.copy(sorted(world.images.glob("*.jpg"))[0], tmp_path / "one/other.jpg")
    with pytest.raises(ConfigurationMismatchError, match="score_threshold"):
        add_images(str(tmp_path / "one"), str(data_set), detector=other, cluster=INLINE, quiet=True)
    assert (data_set / "plan/plan.json").read_bytes() == plan


def test_a_run_ends_when_more_fail_than_it_may_and_keeps_what_is_done(spoiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(FailureBudgetError, match=r"2 of 11 inputs failed .* more than --max-failures 1"):
        extract(spoiled, out, max_failures=parse_budget("1"))
    assert [read_receipt(Store.at(out), "regions", shard) is not None for shard in range(3)] == [True, False, False]
    with pytest.raises(FailureBudgetError):
        extract(spoiled, out, max_failures=parse_budget("20%"))  # 2.2 inputs; the third is in the last shard
    assert extract(spoiled, out, max_failures=parse_budget("30%")).counts["ok"] == 8


def test_what_is_tried_again_counts_when_it_failed_again(world, spoiled: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out, budget = tmp_path / "out", parse_budget("1")
    extract(spoiled, out)
    mend(spoiled, world, 0, 1)
    classes = ["torn_image", "not_an_image", "empty_file"]
    assert extract(spoiled, out, retry_failed=classes, max_failures=budget).counts["ok"] == 10
    with pytest.raises(FailureBudgetError):
        extract(spoiled, out, retry_failed=classes, max_failures=parse_budget("0"))


def test_shares_are_exact() -> None:
    assert parse_budget("0.57%").allowed(10_000) == 57 and str(parse_budget("0.50%")) == "0.50%"


@pytest.mark.parametrize("text", ["", "-1", "1.5", "many", "101%", "%"])
def test_a_budget_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="number of failures"):
        parse_budget(text)


def test_status_and_failures_tell_what_the_rows_say(spoiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extract(spoiled, out)
    (out / "regions/00001.json").unlink()
    status = run_status(str(out))
    assert (status.shards, status.shards_done, status.inputs, status.inputs_done, status.ok) == (3, 2, 11, 7, 4)
    assert status.faults == {"empty_file": 1, "not_an_image": 1, "torn_image": 1}
    assert status.running == () and status.rate is None
    assert "2 of 3 shards, 7 of 11 inputs (63.6%)" in render_status(status)
    found = [(failure.error_class, failure.shard, failure.position) for failure in list_failures(str(out))]
    assert found == [("torn_image", 0, 0), ("not_an_image", 0, 1), ("empty_file", 2, 2)]
    assert [failure.key for failure in list_failures(str(out), ["empty_file"])] == [sorted(spoiled.glob("*"))[-1].stem]
    with pytest.raises(InputError, match="no class nonsense"):
        list(list_failures(str(out), ["nonsense"]))


def test_what_cannot_be_read_is_counted_as_unfinished(spoiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extract(spoiled, out)
    failures = list_failures(str(out))
    assert len(list(failures)) == 3 and (failures.shards, failures.unfinished) == (3, 0)
    (out / "regions/00000.json").write_text("{")
    (out / "regions/00001.json").unlink()
    (out / "regions/00002.parquet").unlink()
    assert list(failures) == [] and failures.unfinished == 3


def test_status_counts_no_shard_whose_files_are_gone(spoiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extract(spoiled, out)
    (out / "regions/00000.json").write_text("{")
    (out / "regions/00001.tar").unlink()
    status = run_status(str(out))
    assert (status.shards_done, status.unreadable, status.torn, status.inputs_done) == (1, 1, 1, 3)
    said = render_status(status)
    assert "1 receipts cannot be read" in said and "1 shards have receipts but their files are gone" in said
    rows_file = out / "regions/00002.parquet"
    rows_file.write_bytes(rows_file.read_bytes()[:-1])
    assert run_status(str(out)).shards_done == 0


def test_status_of_a_run_at_work_gives_its_rate(spoiled: Path, tmp_path: Path) -> None:
    from mvptr_data.dataset.lock_files import Slice
    from mvptr_data.dataset.locks import hold_lock

    out = tmp_path / "out"
    extract(spoiled, out)
    with hold_lock(Store.at(out), "regions", Slice(1, 3)):
        for shard in (0, 1):
            (out / f"regions/0000{shard}.json").unlink()
        extract(spoiled, out, part=Slice(0, 3))
        status = run_status(str(out))
    assert len(status.running) == 1 and status.running[0].endswith("(array task 1/3)")
    assert status.rate is not None and status.seconds_left is not None and status.inputs_done == 7
