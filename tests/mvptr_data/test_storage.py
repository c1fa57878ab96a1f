from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.errors import DamagedFileError, InputError
from mvptr_data.storage import Store, canonical_json, digest


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store.at(tmp_path)
    fsspec.filesystem("memory").store.clear()
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
