from __future__ import annotations

import dataclasses
import json
import shutil
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mvptr_data.dataset.records import decode_array
from mvptr_data.detectors import Regions, load_detector
from mvptr_data.errors import BusyError, ConfigurationMismatchError, IncompleteError, InputError
from mvptr_data.storage import Store
from pipelines import detector_runner
from pipelines import extract_regions as module
from pipelines.cluster import ClusterOptions
from pipelines.detector_runner import DetectorChoice
from pipelines.extract_regions import extract_regions
from pipelines.extract_shard import ShardTask

INLINE = ClusterOptions(cluster="inline")


def rows(out: Path) -> dict[str, dict[str, object]]:
    """Rows of all shards by key."""
    return {
        row["key"]: row
        for file in sorted((out / "regions").glob("*.parquet"))
        for row in pq.read_table(file).to_pylist()
    }


def bomb(path: Path) -> None:
    """A PNG header that promises 20,000 x 20,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    header = (20_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.fixture
def mess(world, tmp_path: Path) -> Path:  # type: ignore[no-untyped-def]
    """One good picture and everything a crawl brings."""
    folder = tmp_path / "mess"
    (folder / "a.b").mkdir(parents=True)
    picture = next(iter(sorted(world.images.glob("*.jpg"))))
    shutil.copy(picture, folder / "good.jpg")
    shutil.copy(picture, folder / "a.b" / "x.v2.jpg")
    Image.open(picture).save(folder / "twin.png")
    shutil.copy(picture, folder / "twin.jpg")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "torn.jpg").write_bytes(picture.read_bytes()[:2000])
    (folder / "text.jpg").write_text("<html>404</html>")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.open(picture).save(folder / "moving.gif")
    (folder / "moving.gif").rename(folder / "still.jpg")
    Image.open(picture).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16).save(folder / "deep.png")
    Image.open(picture).convert("RGBA").save(folder / "clear.png")
    bomb(folder / "bomb.png")
    return folder


def test_every_input_has_a_row_and_its_fate(mess: Path, tmp_path: Path) -> None:
    summary = extract_regions(str(mess), str(tmp_path / "out"), samples_per_shard=5, cluster=INLINE, quiet=True)
    found = rows(tmp_path / "out")
    fates = {key: row["error_class"] or "ok" for key, row in found.items() if key != "twin"}
    assert fates == {
        "good": "ok",
        "a.b/x.v2": "ok",
        "still": "ok",
        "cmyk": "ok",
        "deep": "ok",
        "clear": "ok",
        "empty": "empty_file",
        "torn": "torn_image",
        "text": "not_an_image",
        "dot": "too_small",
        "bomb": "too_large",
    }
    twins = [
        row
        for file in (tmp_path / "out/regions").glob("*.parquet")
        for row in pq.read_table(file).to_pylist()
        if row["key"] == "twin"
    ]
    assert sorted(str(row["error_class"]) for row in twins) == ["None", "duplicate_key"]
    assert (found["still"]["format"], found["cmyk"]["mode"], found["clear"]["mode"]) == ("GIF", "CMYK", "RGBA")
    assert summary.counts["inputs"] == 13 and summary.counts["ok"] == 7 and summary.counts["duplicate_key"] == 1


def test_what_is_stored_is_what_the_detector_says(world, published: Path) -> None:  # type: ignore[no-untyped-def]
    detector = load_detector("compact")
    for key, row in list(rows(published).items())[:3]:
        with Image.open(world.images / f"{key}.jpg") as image:
            [regions] = detector.detect([image.convert("RGB")])
        tar = next((published / "regions").glob("00000.tar")).read_bytes()
        boxes = decode_array(tar[row["boxes_offset"] :][: row["boxes_size"]], "boxes")  # type: ignore[index,misc]
        np.testing.assert_allclose(boxes, regions.boxes, atol=1e-3)
        assert row["regions"] == len(regions.boxes)


def test_started_again_it_keeps_what_is_finished_and_redoes_what_is_torn(
    world, published: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    extract_regions(str(world.images), str(out), samples_per_shard=4, cluster=INLINE, quiet=True)
    (out / "regions/00001.json").unlink()  # as a kill before the receipt leaves it
    tar = out / "regions/00001.tar"
    tar.write_bytes(tar.read_bytes()[:1000])
    (out / "regions/.00002.tar.1-ff.tmp").write_bytes(b"left by a killed worker")
    summary = extract_regions(str(world.images), str(out), samples_per_shard=4, cluster=INLINE, quiet=True)
    assert (summary.shards_written, summary.shards_kept) == (1, 2)
    for name in ("00000", "00001", "00002"):
        for suffix in ("tar", "parquet"):
            assert (out / f"regions/{name}.{suffix}").read_bytes() == (
                published / f"regions/{name}.{suffix}"
            ).read_bytes()
    assert not list((out / "regions").glob("*.tmp")) and not list((out / "regions").glob("*.g*"))


@pytest.mark.parametrize("harm", ["tar cut", "receipt cut", "receipt gone"])
def test_what_was_promised_is_never_written_over(
    harm: str, world, published: Path, data_set: Path, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    """Done again, a shard becomes the next generation: the published data set may still be read from."""
    tar, receipt = data_set / "regions/00001.tar", data_set / "regions/00001.json"
    if harm == "receipt gone":
        receipt.unlink()
    else:
        broken = tar if harm == "tar cut" else receipt
        broken.write_bytes(broken.read_bytes()[:300])
    before = {path.name: path.read_bytes() for path in (data_set / "regions").glob("0*.tar")}
    extract_regions(str(world.images), str(data_set), samples_per_shard=4, cluster=INLINE, quiet=True)
    assert {name: (data_set / "regions" / name).read_bytes() for name in before} == before
    for suffix in ("tar", "parquet"):
        again = (data_set / f"regions/00001.g1.{suffix}").read_bytes()
        assert again == (published / f"regions/00001.{suffix}").read_bytes()


def test_another_configuration_is_refused_with_the_difference(world, data_set: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigurationMismatchError, match=r"detector\.score_threshold: 0\.3 -> 0\.6"):
        extract_regions(
            str(world.images),
            str(data_set),
            samples_per_shard=4,
            detector=DetectorChoice(options=(("score_threshold", 0.6),)),
            cluster=INLINE,
            quiet=True,
        )
    with pytest.raises(ConfigurationMismatchError, match="samples_per_shard"):
        extract_regions(str(world.images), str(data_set), samples_per_shard=5, cluster=INLINE, quiet=True)


def test_a_wrong_path_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        extract_regions(str(tmp_path / "nowhere"), str(tmp_path / "out"), cluster=INLINE, quiet=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        extract_regions(str(tmp_path / "empty"), str(tmp_path / "out"), cluster=INLINE, quiet=True)
    with pytest.raises(InputError, match="unheard-of"):
        extract_regions(
            str(tmp_path), str(tmp_path / "out"), detector=DetectorChoice(name="unheard-of"), cluster=INLINE, quiet=True
        )
    assert not (tmp_path / "out").exists()


def test_a_live_run_is_not_disturbed(world, data_set: Path) -> None:  # type: ignore[no-untyped-def]
    from mvptr_data.dataset.locks import hold_lock

    with hold_lock(Store.at(data_set), "regions"), pytest.raises(BusyError):
        extract_regions(str(world.images), str(data_set), samples_per_shard=4, cluster=INLINE, quiet=True)


class Fussy:
    """The compact detector, but it cannot stand pictures 250 pixels wide, nor batches with one in them."""

    name = "fussy"

    def __init__(self) -> None:
        self._inner = load_detector("compact")

    def configuration(self) -> dict[str, object]:
        return self._inner.configuration()

    def detect(self, images: Sequence[Image.Image]) -> list[Regions]:
        if any(image.width == 250 for image in images):
            raise RuntimeError("250 is too wide")
        return self._inner.detect(images)


def test_an_image_that_breaks_the_detector_is_one_fault(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "images"
    shutil.copytree(world.images, folder)
    victim = sorted(folder.glob("*.jpg"))[2]
    Image.open(victim).resize((250, 250)).save(victim)
    monkeypatch.setattr(detector_runner, "load_detector", lambda name, **options: Fussy())
    summary = extract_regions(
        str(folder), str(tmp_path / "out"), detector=DetectorChoice(name="fussy"), cluster=INLINE, quiet=True
    )
    found = rows(tmp_path / "out")
    assert found[victim.stem]["error_class"] == "detector_error" and "250 is too wide" in str(
        found[victim.stem]["message"]
    )
    assert summary.counts["ok"] == summary.counts["inputs"] - 1


def test_img2dataset_tars_and_remote_outputs(world, tmp_path: Path, published: Path) -> None:  # type: ignore[no-untyped-def]
    import tarfile

    import fsspec

    folder = tmp_path / "tars"
    folder.mkdir()
    pictures = sorted(world.images.glob("*.jpg"))
    for number, half in enumerate((pictures[:5], pictures[5:])):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for picture in half:
                tar.add(picture, picture.name)
                sidecar = tmp_path / f"{picture.stem}.json"
                sidecar.write_text(json.dumps({"caption": "x"}))
                tar.add(sidecar, sidecar.name)
    fsspec.filesystem("memory").store.clear()
    extract_regions(str(folder), "memory://bucket/out", samples_per_shard=4, cluster=INLINE, quiet=True)
    remote = Store.at("memory://bucket/out")
    for name in ("00000", "00001", "00002"):
        assert remote.read(f"regions/{name}.tar") == (published / f"regions/{name}.tar").read_bytes()
    assert any(name.endswith(".log") for name in remote.names("logs"))


def test_regions_without_their_plan_are_not_taken_for_another_inputs(world, data_set: Path) -> None:  # type: ignore[no-untyped-def]
    shutil.rmtree(data_set / "plan")
    with pytest.raises(IncompleteError, match="no plan"):
        extract_regions(str(world.images), str(data_set), samples_per_shard=4, cluster=INLINE, quiet=True)


def test_what_a_killed_worker_leaves_is_gone_when_the_run_ends(
    world,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = module.extract_shard

    def leave(task: ShardTask, shard: int) -> object:
        (tmp_path / "out/regions/.00000.tar.1-ff.tmp").write_bytes(b"half")
        return real(task, shard)

    monkeypatch.setattr(module, "extract_shard", leave)
    extract_regions(str(world.images), str(tmp_path / "out"), cluster=INLINE, quiet=True)
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_workers_elsewhere_say_themselves_what_they_extract_with(
    world, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    """As on a login node, this process never loads the detector."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as elsewhere:
        options = ClusterOptions(cluster=elsewhere.scheduler_address)
        with monkeypatch.context() as patch:
            patch.setattr(detector_runner, "load_detector", lambda *_, **__: pytest.fail("loaded here"))
            extract_regions(str(world.images), str(tmp_path / "out"), samples_per_shard=4, cluster=options, quiet=True)
    for name in ("00000", "00001", "00002"):
        assert (tmp_path / f"out/regions/{name}.tar").read_bytes() == (published / f"regions/{name}.tar").read_bytes()


class Picky(Fussy):
    """Takes offence in every way that a detector of anyone's may."""

    def __init__(self, way: str, victim: int) -> None:
        super().__init__()
        self._way, self._victim = way, victim

    def prepare(self, image: Image.Image) -> Image.Image:
        if self._way == "prepare" and image.width == self._victim:
            raise KeyError("no such picture")
        return image

    def detect(self, images: Sequence[Image.Image]) -> list[Regions]:
        offended = any(image.width == self._victim for image in images)
        if offended and self._way == "assert":
            raise AssertionError
        if offended and self._way == "exit":
            raise SystemExit(3)
        found = self._inner.detect(images)
        if offended and self._way == "outside":
            found = [
                dataclasses.replace(one, boxes=one.boxes + 500) if image.width == self._victim else one
                for one, image in zip(found, images, strict=True)
            ]
        return found


@pytest.mark.parametrize("way", ["prepare", "assert", "exit", "outside"])
def test_whatever_a_detector_does_to_one_image_is_that_images_fault(
    way: str, world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "images"
    shutil.copytree(world.images, folder)
    victim = sorted(folder.glob("*.jpg"))[2]
    Image.open(victim).resize((250, 250)).save(victim)
    monkeypatch.setattr(detector_runner, "load_detector", lambda name, **options: Picky(way, 250))
    before = set(threading.enumerate())
    extract_regions(str(folder), str(tmp_path / "out"), detector=DetectorChoice(name=way), cluster=INLINE, quiet=True)
    fates = {key: row["error_class"] for key, row in rows(tmp_path / "out").items()}
    assert fates.pop(victim.stem) == "detector_error" and set(fates.values()) == {None}
    left = set(threading.enumerate()) - before
    assert not [thread.name for thread in left if thread.name.startswith(("ahead", "prefetch"))]
