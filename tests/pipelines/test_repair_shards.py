"""Damage a data set, repair it, verify it, and compare its bytes with the undamaged one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mvptr_data.dataset import layout
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.errors import BusyError, DamagedFileError, FormatVersionError, IncompleteError
from mvptr_data.storage import Store
from pipelines.cli import main
from pipelines.cluster import ClusterOptions
from pipelines.repair_shards import Repair, repair_shards
from pipelines.verify_shards import verify_shards

INLINE = ClusterOptions(cluster="inline")
PUBLISHED = ("index.parquet", "samples.parquet", "image_ids.parquet", "same_images.parquet", "manifest.json")


def repair(path: Path) -> Repair:
    return repair_shards(str(path), cluster=INLINE, quiet=True)


def damage(file: Path, how: str) -> None:
    """Tear, flip or remove a file; a flip is one that JSON and Parquet both notice."""
    data = bytearray(file.read_bytes())
    if how == "remove":
        file.unlink()
    elif how == "tear":
        file.write_bytes(data[: len(data) // 2])
    else:
        data[-1 - len(data) // 3] ^= 0x80
        file.write_bytes(data)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file but logs and locks; of receipts only what their digest covers."""
    return {
        name: _promised(file)
        if file.parent.name in ("regions", "text") and file.suffix == ".json"
        else file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and (name := str(file.relative_to(folder))).split("/")[0] not in ("logs", "locks")
    }


def _promised(receipt: Path) -> bytes:
    found = json.loads(receipt.read_text())
    return json.dumps({name: found[name] for name in found if name not in ("seconds", "environment")}).encode()


def test_a_sound_data_set_stays_as_it_is(data_set: Path) -> None:
    before = {
        file: file.stat().st_mtime_ns for file in data_set.rglob("*") if file.suffix in (".json", ".parquet", ".tar")
    }
    result = repair(data_set)
    assert (result.rebuilt, result.left) == ((), ()) and result.verification and not result.verification.findings
    after = {
        file: file.stat().st_mtime_ns for file in data_set.rglob("*") if file.suffix in (".json", ".parquet", ".tar")
    }
    assert before == after


@pytest.mark.parametrize("how", ["remove", "tear", "flip"])
@pytest.mark.parametrize(
    "names",
    [
        *((name,) for name in PUBLISHED),
        PUBLISHED,
        ("regions/00001.json",),
        ("text/00002.json",),
        ("regions/field.json",),
        ("text/field.json",),
        ("text/phrase_vocab.parquet",),
        ("regions/00000.json", "regions/00002.json", "text/00000.json", *PUBLISHED),
        ("text/phrase_vocab.parquet", "text/00001.json", "manifest.json"),
    ],
    ids="+".join,
)
def test_what_can_be_rebuilt_has_the_same_bytes(
    data_set: Path, published: Path, names: tuple[str, ...], how: str
) -> None:
    for name in names:
        damage(data_set / name, how)
    result = repair(data_set)
    assert result.left == () and sorted(result.rebuilt) == sorted(names)
    assert result.verification is not None and not result.verification.findings
    assert bytes_of(data_set) == bytes_of(published)


def test_a_rebuilt_receipt_says_so(data_set: Path) -> None:
    (data_set / "regions/00001.json").unlink()
    repair(data_set)
    assert "rebuilt" in json.loads((data_set / "regions/00001.json").read_text())["environment"]


@pytest.mark.parametrize(
    ("name", "how", "command"),
    [
        (
            "regions/00001.tar",
            "flip",
            "remove regions/00001.json, then run `mvptr-data extract-regions {images} {out}`",
        ),
        (
            "regions/00001.tar",
            "tear",
            "remove regions/00001.json, then run `mvptr-data extract-regions {images} {out}`",
        ),
        ("regions/00002.parquet", "remove", "remove regions/00002.json, then run `mvptr-data extract-regions"),
        ("text/00000.tar", "flip", "remove text/00000.json, then run `mvptr-data write-shards {out}`"),
        ("text/00000.parquet", "tear", "remove text/00000.json, then run `mvptr-data write-shards {out}`"),
        ("captions/00000.parquet", "flip", "Remove captions/, then run `mvptr-data build-phrase-vocab CAPTIONS {out}`"),
        ("plan/00001.parquet", "flip", "restore it from a copy"),
        ("plan/00001.parquet", "tear", "restore it from a copy"),
        ("plan/00001.parquet", "remove", "restore it from a copy"),
    ],
)
@pytest.mark.parametrize("manifest", [True, False], ids=["published", "without a manifest"])
def test_what_cannot_be_rebuilt_is_listed(
    data_set: Path, published: Path, world: Any, name: str, how: str, command: str, manifest: bool
) -> None:
    before = bytes_of(data_set)
    damage(data_set / name, how)
    if not manifest:
        (data_set / "manifest.json").unlink()
    [left] = repair(data_set).left
    assert left.shard == (None if name.startswith(("captions", "plan")) else int(name.split("/")[1][:5]))
    assert command.format(images=world.images, out=data_set) in left.command
    after = bytes_of(data_set)
    assert {other for other in before if before[other] != after.get(other)} <= {name, "manifest.json"}


@pytest.mark.parametrize("name", ["regions/00001.tar", "text/00001.parquet"])
@pytest.mark.parametrize("manifest", [True, False], ids=["published", "without a manifest"])
def test_no_receipt_is_rebuilt_of_files_that_are_unsound(data_set: Path, name: str, manifest: bool) -> None:
    damage(data_set / name, "tear")
    receipt = data_set / f"{name.split('.')[0]}.json"
    receipt.unlink()
    if not manifest:
        (data_set / "manifest.json").unlink()
    result = repair(data_set)
    assert not receipt.exists() and len(result.left) == 1
    assert (result.left[0].field, result.left[0].shard) == (name.split("/")[0], 1)
    assert "To make it again, run `mvptr-data" in result.left[0].command
    assert (result.verification is not None) is manifest


def test_a_flipped_feature_is_not_signed_where_the_index_tells(data_set: Path) -> None:
    tar = data_set / "regions/00001.tar"
    data = bytearray(tar.read_bytes())
    data[data.index(b"'descr': '<f2'") + 1000] ^= 1  # the last bit of a feature: as sound a number as before
    tar.write_bytes(data)
    (data_set / "regions/00001.json").unlink()
    [left] = repair(data_set).left
    assert "not those that the index promises" in left.why and not (data_set / "regions/00001.json").exists()


def test_what_is_listed_heals_the_data_set(data_set: Path, published: Path, world: Any) -> None:
    from pipelines.extract_regions import extract_regions
    from pipelines.write_shards import write_shards

    damage(data_set / "regions/00001.tar", "flip")
    [left] = repair(data_set).left
    assert left.command.startswith("To make it again, remove regions/00001.json")
    (data_set / "regions/00001.json").unlink()
    extract_regions(str(world.images), str(data_set), samples_per_shard=4, cluster=INLINE, quiet=True)
    write_shards(str(data_set), cluster=INLINE, quiet=True)
    assert verify_shards(str(data_set), cluster=INLINE, quiet=True).findings == ()
    assert (data_set / "regions/00001.g1.tar").read_bytes() == (published / "regions/00001.tar").read_bytes()
    assert repair(data_set).rebuilt == ()


def test_images_that_were_added_and_not_published_stay_out(
    data_set: Path, published: Path, tmp_path: Path, world: Any
) -> None:
    from pipelines.extract_regions import add_images

    more = tmp_path / "more"
    more.mkdir()
    for image in sorted(world.images.iterdir())[:3]:
        shutil.copy(image, more / f"again-{image.name}")
    add_images(str(more), str(data_set), cluster=INLINE, quiet=True)
    for name in PUBLISHED:
        (data_set / name).unlink()
    result = repair(data_set)
    assert sorted(result.rebuilt) == sorted(PUBLISHED) and result.left == ()
    assert all((data_set / name).read_bytes() == (published / name).read_bytes() for name in PUBLISHED)


def test_rows_that_are_torn_leave_a_sound_index_as_it_is(data_set: Path) -> None:
    """The rows keep their size, so their receipt is intact; they are not what is published."""
    index = (data_set / "index.parquet").read_bytes()
    damage(data_set / "samples.parquet", "tear")
    rows = data_set / "text/00001.parquet"
    rows.write_bytes(b"PAR0" + rows.read_bytes()[4:-4] + b"PAR0")
    result = repair(data_set)
    assert result.rebuilt == () and (data_set / "index.parquet").read_bytes() == index
    assert {left.file for left in result.left} == {"manifest.json", "text/00001.parquet"}


def test_what_another_release_wrote_is_not_written_over(data_set: Path) -> None:
    for name, version in (("manifest.json", '"version": 2'), ("regions/00001.json", '"version": 1')):
        file = data_set / name
        newer = file.read_text().replace(version, '"version": 99')
        sound, _ = file.read_text(), file.write_text(newer)
        with pytest.raises(FormatVersionError, match="99"):
            repair(data_set)
        assert file.read_text() == newer
        file.write_text(sound)


def test_it_refuses_beside_a_run_and_without_a_plan(data_set: Path, tmp_path: Path) -> None:
    (data_set / "manifest.json").unlink()
    for field in ("regions", "text"):
        with hold_lock(Store.at(data_set), field), pytest.raises(BusyError):
            repair(data_set)
    assert not (data_set / "manifest.json").exists()
    with pytest.raises(IncompleteError, match="no plan"):
        repair(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    damage(data_set / layout.PLAN, "tear")
    with pytest.raises(DamagedFileError, match=r"plan\.json"):
        repair(data_set)


def test_without_manifest_and_captions_it_says_what_lacks(data_set: Path) -> None:
    (data_set / "manifest.json").unlink()
    shutil.rmtree(data_set / "captions")
    result = repair(data_set)
    assert result.rebuilt == () and result.verification is None
    [left] = result.left
    assert left.file == "captions/captions.json" and "build-phrase-vocab" in left.command


def test_a_damaged_plan_advises_nobody_to_remove_a_sound_receipt(data_set: Path) -> None:
    damage(data_set / "plan/00001.parquet", "tear")
    damage(data_set / "text/00000.tar", "tear")
    (data_set / "manifest.json").unlink()
    result = repair(data_set)
    assert result.verification is None, "there is no manifest to verify by"
    assert [left.file for left in result.left] == ["plan/00001.parquet", "text/00000.json"]


def test_the_command(data_set: Path, tmp_path: Path) -> None:
    for name in PUBLISHED:
        damage(data_set / name, "tear")
    arguments = ["verify", str(data_set), "--cluster", "inline", "--quiet"]
    found = tmp_path / "found.json"
    run = CliRunner()
    assert run.invoke(main, arguments).exit_code == 1
    done = run.invoke(main, [*arguments, "--repair", "--json", str(found)])
    assert done.exit_code == 0 and done.output.startswith("5 files rebuilt; sound: 11 samples")
    assert sorted(json.loads(found.read_text())["rebuilt"]) == sorted(PUBLISHED)
    assert run.invoke(main, arguments).output.startswith("sound: 11 samples")
    damage(data_set / "text/00001.tar", "flip")
    plain = run.invoke(main, arguments)
    assert plain.exit_code == 1 and "--repair" in plain.output
    failed = run.invoke(main, [*arguments, "--repair", "--json", str(found)])
    assert failed.exit_code == 1 and "0 files rebuilt, 1 left" in failed.output
    assert "text/00001.tar: its sha256 is not" in failed.output and "write-shards" in failed.output
    [left] = json.loads(found.read_text())["left"]
    assert (left["field"], left["shard"]) == ("text", 1)
