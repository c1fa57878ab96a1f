"""File lists: which key a line gets, and which lines are refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import fsspec
import pytest

from mvptr_data.errors import InputError, SampleFault
from mvptr_data.sources.images import ImageRef, list_images, read_image_bytes


def write_list(folder: Path, *lines: str) -> str:
    path = folder / "images.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_lines_become_references_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "z").mkdir()
    (tmp_path / "z/b.jpg").write_bytes(b"B")
    (tmp_path / "a.jpg").write_bytes(b"A")
    path = write_list(
        tmp_path,
        "\ufeff# the pictures",
        "",
        "z/b.jpg",
        "  ./a.jpg\t\r",
        f"{tmp_path}/z/b.jpg",
        "a.jpg\tmine/é",
        "gone.any",
    )
    refs = list(list_images(path, split="val"))
    assert [ref.key for ref in refs] == ["z/b", "a", "z/b", "mine/é", "gone"]
    assert [ref.uri for ref in refs] == [
        f"{tmp_path}/{name}" for name in ("z/b.jpg", "a.jpg", "z/b.jpg", "a.jpg", "gone.any")
    ]
    assert {ref.split for ref in refs} == {"val"} and all(ref.fault is None for ref in refs)
    assert [read_image_bytes(ref) for ref in refs[:4]] == [b"B", b"A", b"B", b"A"]
    with pytest.raises(SampleFault, match="missing_file"):
        read_image_bytes(refs[4])


def test_absolute_lines_need_a_root_that_holds_them(tmp_path: Path) -> None:
    lists, data = tmp_path / "lists", tmp_path / "data"
    lists.mkdir()
    path = write_list(
        lists, f"{data}/val/1.jpg", f"{tmp_path}/data2/1.jpg", f"{data}/../secret.jpg", "/etc/x.jpg\tgiven"
    )
    (outside, *_, given) = list_images(path)
    assert (outside.key, outside.fault) == (f"{data}/val/1.jpg", "unsafe_key")
    assert "--root" in str(outside.message)
    assert (given.key, given.uri, given.fault) == ("given", "/etc/x.jpg", None)
    refs = list(list_images(path, root=f"{data}/"))
    assert [ref.fault for ref in refs] == [None, "unsafe_key", "unsafe_key", None]
    assert refs[0].key == "val/1" and refs[2].key == "../secret"


@pytest.mark.parametrize("line", ["../x.jpg", "a//b.jpg", "a/../b.jpg", "x.jpg\t/a", "x.jpg\ta\tb", "x.jpg\t.."])
def test_unsafe_keys_are_faults(tmp_path: Path, line: str) -> None:
    (ref,) = list_images(write_list(tmp_path, line))
    assert ref.fault == "unsafe_key"
    with pytest.raises(SampleFault, match="unsafe_key"):
        read_image_bytes(ref)


def test_lines_that_are_not_utf8_are_faults(tmp_path: Path) -> None:
    (tmp_path / "x.lst").write_bytes(b"\xff.jpg\na.jpg\n")
    assert [ref.fault for ref in list_images(str(tmp_path / "x.lst"))] == ["unsafe_key", None]


def test_urls(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/sources-lists/a/1.jpg", b"one")
    path = write_list(
        tmp_path, "memory://sources-lists/a/1.jpg", "memory://sources-lists/x?id=1.5", "nosuch://a.org/2.png#top"
    )
    refs = list(list_images(path))
    assert [ref.key for ref in refs] == ["sources-lists/a/1", "sources-lists/x?id=1.5", "a.org/2"]
    assert read_image_bytes(refs[0]) == b"one"
    with pytest.raises(SampleFault, match="missing_file"):
        read_image_bytes(refs[2])
    assert next(list_images(path, root="memory://sources-lists")).key == "a/1"


def test_remote_lists() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/sources-remote/list.txt", b"a/1.jpg\nmemory://sources-remote/a/1.jpg\n/etc/x.jpg\n")
    memory.pipe("/sources-remote/a/1.jpg", b"one")
    refs = list(list_images("memory://sources-remote/list.txt"))
    assert refs[0] == refs[1] == ImageRef(key="a/1", uri="memory://sources-remote/a/1.jpg")
    assert refs[2].fault == "unsafe_key"
    assert read_image_bytes(refs[0]) == b"one"


def test_archives_in_a_list(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        info = tarfile.TarInfo("0001.jpg")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"one"))
    refs = list(list_images(write_list(tmp_path, "s.tar", f"{tmp_path}/gone.tar", "s.tar\tkey", "s.tar.gz")))
    assert [(ref.key, ref.fault) for ref in refs] == [
        ("0001", None),
        (f"{tmp_path}/gone.tar", "missing_file"),
        ("s.tar", "broken_record"),
        ("s.tar.gz", "missing_file"),
    ]
    assert read_image_bytes(refs[0]) == b"one"


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "pipe.txt").symlink_to("/dev/null")
    with pytest.raises(InputError, match="cannot read the file list"):
        list(list_images(str(tmp_path / "pipe.txt")))
