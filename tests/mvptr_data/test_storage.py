from __future__ import annotations

import json
import os
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.errors import DamagedFileError, InputError, OutputError
from mvptr_data.storage import (
    MAX_JSON_BYTES,
    Store,
    canonical_json,
    check_shared,
    digest,
    is_process_local,
    is_url,
    parse_json,
)


def forget_memory() -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store.at(tmp_path)
    forget_memory()
    return Store.at("memory://bucket/set")


def test_files_come_back(store: Store) -> None:
    assert not store.exists("a/b.bin") and store.size("a/b.bin") is None and store.names("a") == []
    store.write("a/b.bin", b"12345")
    assert store.exists("a/b.bin") and store.size("a/b.bin") == 5
    assert store.read("a/b.bin") == b"12345"
    assert store.names("a") == ["a/b.bin"]
    assert store.sha256("a/b.bin") == "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
    with store.open("a/b.bin") as file:
        file.seek(3)
        assert file.read() == b"45"
    store.remove("a/b.bin")
    store.remove("a/b.bin")
    with pytest.raises(FileNotFoundError):
        store.read("a/b.bin")


def test_a_failed_write_leaves_the_file_before(store: Store) -> None:
    store.write("a/b.bin", b"before")
    with pytest.raises(RuntimeError, match="stop"), store.writing("a/b.bin") as file:
        file.write(b"half")
        raise RuntimeError("stop")
    assert store.read("a/b.bin") == b"before"
    assert store.names("a") == ["a/b.bin"]


def test_files_written_together_get_their_names_together(store: Store) -> None:
    store.write("a/1.bin", b"before")
    with pytest.raises(ZeroDivisionError), store.together() as staged:
        staged.write("a/1.bin", b"after")
        staged.write("b/2.bin", b"new")
        1 / 0  # noqa: B018
    assert store.read("a/1.bin") == b"before" and store.entries("a") == ["1.bin"] and not store.exists("b/2.bin")
    with store.together() as staged:
        staged.write("a/1.bin", b"after")
        staged.write_json("b/2.json", {"sha256": staged.sha256("a/1.bin")})
        assert (
            store.read("a/1.bin") == b"before" and staged.read("a/1.bin") == b"after" and not store.exists("b/2.json")
        )
        with pytest.raises(ValueError, match="twice"):
            staged.write("a/1.bin", b"again")
    assert store.read("a/1.bin") == b"after" and store.read_json("b/2.json") == {"sha256": store.sha256("a/1.bin")}
    assert store.entries("a") == ["1.bin"] and store.entries("b") == ["2.json"]


def test_marks_go_before_what_they_vouch_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.at(tmp_path)
    for name in ("s/x/mark.json", "s/x/parts/0.bin", "s/mark.json"):
        store.write(name, b"1")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", killed)
        store.remove_folder("s")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")] == ["s/x/parts/0.bin"]


def test_the_name_of_a_folder_is_not_empty() -> None:
    with pytest.raises(InputError, match="is empty"):
        Store.at("")


def test_folders_are_removed_whole_but_never_the_root(store: Store) -> None:
    store.write("a/b/c.bin", b"1")
    store.write("a/d.bin", b"1")
    store.remove_folder("a/b")
    store.remove_folder("nowhere")
    assert store.names("a/b") == [] and store.names("a") == ["a/d.bin"]
    with pytest.raises(ValueError, match="root"):
        store.remove_folder("")


def test_json_that_is_torn_names_its_file(store: Store) -> None:
    store.write_json("x.json", {"b": 1, "a": "é"})
    assert store.read_json("x.json") == {"a": "é", "b": 1}
    for torn in (b'{"a"', b"[]", b"[" * 100_000, b"\xff"):
        store.write("x.json", torn)
        with pytest.raises(DamagedFileError, match=r"x\.json"):
            store.read_json("x.json")


def test_left_over_temporaries_are_removed(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    store.write("a/b.tar", b"1")
    (tmp_path / "a/.b.tar.99-abcdef.tmp").write_bytes(b"half")
    store.remove_temporaries("a")
    assert store.names("a") == ["a/b.tar"]


def test_unknown_protocols_are_one_clear_error() -> None:
    with pytest.raises(InputError, match="nosuchprotocol"):
        Store.at("nosuchprotocol://x").exists("a")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_canonical_json_depends_on_the_value_alone(value: dict[str, object]) -> None:
    shuffled = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(shuffled)
    assert digest(value) == digest(json.loads(canonical_json(value)))


def test_a_file_url_is_the_local_folder(tmp_path: Path) -> None:
    store = Store.at(f"file://{tmp_path}")
    assert store == Store.at(tmp_path) and store.is_local


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://bucket/a", True),
        ("memory://a::b.jpg", True),
        ("simplecache::s3://bucket/a", True),
        ("zip://a.jpg::simplecache::https://h.org/x.zip", True),
        ("nosuch://x", True),
        ("foo::bar.jpg", False),
        ("d::e/x.jpg", False),
        ("simplecache::a.jpg", False),
        ("a::s3://b", False),
        ("/data/a::b", False),
        ("./http://x", False),
        ("C:/x", False),
        ("", False),
    ],
)
def test_only_protocols_make_a_url(path: str, expected: bool) -> None:
    assert is_url(path) == expected


def test_local_folders_may_have_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.at("c/out::1")
    store.write("a::b/x.bin", b"1")
    assert store.is_local and store.names("a::b") == ["a::b/x.bin"]
    assert [path.name for path in Path("c").iterdir()] == ["out::1"] and (
        tmp_path / "c/out::1/a::b/x.bin"
    ).read_bytes() == b"1"


def test_what_one_process_has_is_not_shared() -> None:
    for path in ("memory://a/b", "simplecache::memory://a"):
        assert is_process_local(path)
        with pytest.raises(InputError, match="--cluster inline"):
            check_shared(None, "s3://a", path)
    for path in ("memory", "/memory/a", "memory::b", "s3://memory/a"):
        assert not is_process_local(path)
        check_shared(path)


def test_entries_are_files_and_folders(store: Store) -> None:
    assert store.entries("") == [] == store.entries("a")
    store.write("a/b/c.bin", b"1")
    store.write("a/d.bin", b"1")
    store.write(".hidden", b"1")
    assert store.entries("") == [".hidden", "a"] and store.entries("a") == ["b", "d.bin"]


def test_files_have_the_names_they_were_written_under(store: Store) -> None:
    store.write("top.bin", b"1")
    store.write("a/b.bin", b"1")
    assert store.names("") == ["top.bin"] and store.names("a") == ["a/b.bin"] and store.names("none") == []
    store.write(".top.bin.1-0a.tmp", b"torn")
    store.remove_temporaries("")
    assert store.names("") == ["top.bin"]


def test_only_empty_folders_are_removed_as_empty(store: Store) -> None:
    store.write("a/b.bin", b"1")
    store.remove_empty_folder("a")
    assert store.read("a/b.bin") == b"1"
    store.remove("a/b.bin")
    store.remove_empty_folder("a")
    store.remove_empty_folder("nowhere")
    assert store.entries("") == []


class Unwilling(MemoryFileSystem):
    """Files in memory whose server, as SMB's, does not rename over a file."""

    protocol = "unwilling"

    def mv(self, path1: str, path2: str, **_: object) -> None:
        if self.exists(path2):
            raise FileExistsError(path2)
        self.cp_file(path1, path2)
        self.rm_file(path1)


@pytest.mark.parametrize("root", ["memory://bucket/[a]", "unwilling://bucket/set"])
def test_uploads_are_whole_or_not_at_all(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("unwilling", Unwilling, clobber=True)
    forget_memory()
    store, size = Store.at(root), 9 << 20
    write, written = MemoryFile.write, []

    def stopped(file: MemoryFile, data: bytes) -> int:
        written.append(len(data))
        if sum(written) > 5 << 20:
            raise KeyboardInterrupt
        return write(file, data)

    for before in (None, b"before"):
        if before is not None:
            store.write("a/b.bin", before)
        with monkeypatch.context() as patch:
            patch.setattr(MemoryFile, "write", stopped)
            written.clear()
            with pytest.raises(KeyboardInterrupt):
                store.write("a/b.bin", bytes(size))
        assert len(written) > 1, "some of it went up"
        assert store.entries("a") == ([] if before is None else ["b.bin"])
        assert store.size("a/b.bin") == (None if before is None else len(before))
    store.write("a/b.bin", bytes(size))
    assert store.size("a/b.bin") == size and store.entries("a") == ["b.bin"]


NO_JSON = ["[1]", "7", "null", '{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": 1', "", "\xff{}"]
HALF_PAIRS = ['{"a": "\\ud800"}', '{"\\udfff": 1}']
TOO_MUCH = ['{"a": ' + "1" * 5000 + "}", '{"a": ' + "[" * 60 + "]" * 60 + "}", '{"a":' * 100_000]


@pytest.mark.parametrize("text", [*NO_JSON, *HALF_PAIRS, *TOO_MUCH], ids=lambda text: text[:20])
def test_json_that_has_no_canonical_bytes_is_a_typed_error(text: str) -> None:
    with pytest.raises(DamagedFileError, match="here is not"):
        parse_json(text.encode(), "here", "")


@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,\\ud8 1eN-', max_size=40).map(str.encode))
def test_what_parses_has_canonical_bytes(data: bytes) -> None:
    try:
        found = parse_json(data, "here", "")
    except DamagedFileError:
        return
    assert parse_json(canonical_json(found), "here", "") == found


def test_what_is_no_file_is_a_typed_error_and_waited_for_by_nobody(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "loop.json").symlink_to("loop.json")
    (tmp_path / "null.json").symlink_to("/dev/null")
    for name in ("pipe.json", "folder.json", "loop.json", "null.json"):
        with pytest.raises(DamagedFileError, match=name):
            store.read_json(name)
    assert store.size("loop.json") is None
    (tmp_path / "sound.json").write_text("{}")
    assert store.size("sound.json/below") is None and store.names("sound.json") == store.entries("sound.json") == []
    with pytest.raises(FileNotFoundError):
        store.read("sound.json/below")
    with pytest.raises(OutputError, match=r"folder\.json: a folder has its name"):
        store.write("folder.json", b"{}")
    assert not [file for file in tmp_path.iterdir() if file.suffix == ".tmp"]


def test_json_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "large.json").write_text("{}")
    os.truncate(tmp_path / "large.json", 1 << 40)
    with pytest.raises(DamagedFileError, match=f"more than {MAX_JSON_BYTES:,} bytes"):
        Store.at(tmp_path).read_json("large.json")
