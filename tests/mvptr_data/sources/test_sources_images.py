"""Listing images and reading their bytes: folders, single files, and what can be wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvptr_data.errors import InputError, SampleFault
from mvptr_data.sources.images import ImageRef, list_images, read_image_bytes


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def keys(path: Path | str, **options: str) -> list[str]:
    return [ref.key for ref in list_images(str(path), **options)]


def test_folder_is_walked_in_order_of_whole_paths(tmp_path: Path) -> None:
    names = ["a.jpg", "a/1.jpg", "a/b/2.PNG", "a-b.jpg", "ab.webp", "B.gif", "z.x.v2.jpg", "é.jpg"]
    refs = list(list_images(str(fill(tmp_path, *names)), split="train"))
    paths = [ref.uri.removeprefix(f"{tmp_path}/") for ref in refs]
    assert paths == sorted(names)
    assert [ref.key for ref in refs] == ["B", "a-b", "a", "a/1", "a/b/2", "ab", "z.x.v2", "é"]
    assert {ref.split for ref in refs} == {"train"}
    assert [read_image_bytes(ref) for ref in refs] == [path.encode() for path in paths]


@settings(max_examples=40, deadline=None)
@given(
    st.sets(
        st.lists(st.from_regex(r"[ab0-][ab0.-]{0,2}", fullmatch=True), min_size=1, max_size=3).map(tuple),
        min_size=1,
        max_size=8,
    )
)
def test_order_is_that_of_code_points(tmp_path_factory: pytest.TempPathFactory, places: set[tuple[str, ...]]) -> None:
    folder = tmp_path_factory.mktemp("order")
    names = ["/".join((*(f"{part}.d" for part in folders), f"{name}.jpg")) for *folders, name in places]
    fill(folder, *names)
    assert [ref.uri.removeprefix(f"{folder}/") for ref in list_images(str(folder))] == sorted(names)


def test_hidden_and_other_files_are_ignored(tmp_path: Path) -> None:
    fill(tmp_path, "x.jpg", "._x.jpg", ".DS_Store", ".cache/y.jpg", "notes.txt", "00000_stats.json", "a.jpg.part")
    assert keys(tmp_path) == ["x"]


def test_names_are_composed_and_bad_ones_are_faults(tmp_path: Path) -> None:
    fill(tmp_path, "e\u0301.jpg", "tab\there.jpg")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg"))).write_bytes(b"x")
    found = {ref.key: ref.fault for ref in list_images(str(tmp_path))}
    assert found == {"é": None, "tab\there": "unsafe_key", "\udcff": "unsafe_key"}


def test_links_loops_and_odd_files(tmp_path: Path) -> None:
    fill(tmp_path, "real/a.jpg", "real/deep/b.jpg")
    (tmp_path / "real/deep/up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "linked").symlink_to(tmp_path / "real/deep", target_is_directory=True)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "itself.jpg").symlink_to(tmp_path / "itself.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    refs = {ref.key: ref for ref in list_images(str(tmp_path))}
    # linked/up leads to the root, which is above itself, and is not entered again.
    assert sorted(refs) == ["gone.jpg", "itself.jpg", "linked/b", "pipe.jpg", "real/a", "real/deep/b"]
    assert [refs[key].fault for key in ("gone.jpg", "itself.jpg", "pipe.jpg")] == ["missing_file"] * 3
    assert "leads nowhere" in str(refs["gone.jpg"].message)
    with pytest.raises(SampleFault, match="leads nowhere"):
        read_image_bytes(refs["gone.jpg"])


def test_unreadable_folder_is_a_fault(tmp_path: Path) -> None:
    fill(tmp_path, "x.jpg")
    part, folder = "d" * 250, os.open(tmp_path, os.O_RDONLY)
    for _ in range(17):  # deeper than the 4,096 bytes that a path may have
        os.mkdir(part, dir_fd=folder)
        inner = os.open(part, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    deep, plain = list_images(str(tmp_path))
    assert (deep.fault, plain.key, plain.fault) == ("missing_file", "x", None)
    assert "the folder cannot be read" in str(deep.message)


def test_one_image_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "pictures/x.y.JPG")
    monkeypatch.chdir(tmp_path)
    assert list(list_images("pictures/x.y.JPG")) == [ImageRef(key="x.y", uri=f"{tmp_path}/pictures/x.y.JPG")]
    assert next(list_images("pictures/")).uri == f"{tmp_path}/pictures/x.y.JPG"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is no file or folder"),
        ("empty", "no images found in .*empty'. Looked for .jpg"),
        ("notes.md", "no folder, .tar, file list"),
        ("x.tar.gz", "compressed archive"),
        ("list.txt", "no images found"),
    ],
)
def test_unusable_input_is_one_clear_error(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty/below").mkdir(parents=True)
    (tmp_path / "notes.md").touch()
    (tmp_path / "x.tar.gz").touch()
    (tmp_path / "list.txt").write_text("\n# nothing\n")
    with pytest.raises(InputError, match=message):
        list(list_images(str(tmp_path / name)))


def test_errors_come_before_the_first_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        list_images(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="--root"):
        list_images(str(tmp_path), root="/data")
    with pytest.raises(InputError, match="null byte"):
        list_images("a\0b.jpg")


def test_reading_faults(tmp_path: Path) -> None:
    fill(tmp_path, "x.jpg", "folder.jpg/y.jpg")
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "huge.jpg").touch()
    os.truncate(tmp_path / "huge.jpg", (1 << 30) + 1)
    cases = {
        "empty": "empty_file",
        "gone": "missing_file",
        "folder": "missing_file",
        "pipe": "missing_file",
        "huge": "too_large",
    }
    for name, fault_class in cases.items():
        with pytest.raises(SampleFault) as caught:
            read_image_bytes(ImageRef(key=name, uri=f"{tmp_path}/{name}.jpg"))
        assert caught.value.fault_class == fault_class, name
    with pytest.raises(SampleFault, match="missing_file"):
        read_image_bytes(ImageRef(key="x", uri="nosuchprotocol://a/x.jpg"))


def test_urls_are_listed_and_read_like_folders() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("b/2.png", "b.jpg", "a.jpg", ".hidden.jpg"):
        memory.pipe(f"/sources-images/{name}", name.encode())
    memory.pipe("/sources-images/c.jpg", b"")
    refs = list(list_images("memory://sources-images/"))
    assert [ref.uri for ref in refs] == [
        f"memory://sources-images/{name}" for name in ("a.jpg", "b.jpg", "b/2.png", "c.jpg")
    ]
    assert [ref.key for ref in refs] == ["a", "b", "b/2", "c"]
    assert [read_image_bytes(ref) for ref in refs[:3]] == [b"a.jpg", b"b.jpg", b"b/2.png"]
    for uri, fault_class in ((refs[3].uri, "empty_file"), ("memory://sources-images/gone.jpg", "missing_file")):
        with pytest.raises(SampleFault, match=fault_class):
            read_image_bytes(ImageRef(key="x", uri=uri))
    assert keys("memory://sources-images/b/2.png") == ["2"]
    with pytest.raises(InputError, match="there is no file or folder"):
        list_images("memory://sources-images/nowhere")
    with pytest.raises(InputError, match="nosuchprotocol"):
        list_images("nosuchprotocol://x/y.jpg")


def test_local_names_may_hold_two_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "dd::e/foo::bar.jpg", "dd::e/simplecache::x.png", "dd::e/zip::y/1.jpg")
    expected = {"foo::bar", "simplecache::x", "zip::y/1"}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("dd::e/foo::bar.jpg\nfoo::bar.jpg\n")
    for images in ("dd::e", str(tmp_path / "dd::e")):
        refs = list(list_images(images))
        assert {ref.key for ref in refs} == expected
        assert {read_image_bytes(ref) for ref in refs} == {
            path.encode() for path in ("dd::e/foo::bar.jpg", "dd::e/simplecache::x.png", "dd::e/zip::y/1.jpg")
        }
    assert [read_image_bytes(ref) for ref in list_images("dd::e/foo::bar.jpg")] == [b"dd::e/foo::bar.jpg"]
    first, gone = list_images("list.txt")
    assert (first.key, read_image_bytes(first)) == ("dd::e/foo::bar", b"dd::e/foo::bar.jpg")
    assert (gone.key, gone.uri) == ("foo::bar", f"{tmp_path}/foo::bar.jpg")
