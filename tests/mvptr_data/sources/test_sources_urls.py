"""Chains of URLs, read through fsspec's own zip backend."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from mvptr_data.errors import InputError
from mvptr_data.sources.images import list_images, read_image_bytes
from mvptr_data.sources.refs import image_key
from mvptr_data.sources.urls import below, folder_of, own_link

HERE = "/data/x::y.zip"  # a local path that looks like a chain


@pytest.mark.parametrize(
    ("uri", "own", "folder", "inner"),
    [
        ("/data/a/x.jpg", "/data/a/x.jpg", "/data/a", "/data/a/x.jpg/n/m"),
        (HERE, HERE, "/data", f"{HERE}/n/m"),
        ("s3://bucket/a/x.jpg", "s3://bucket/a/x.jpg", "s3://bucket/a", "s3://bucket/a/x.jpg/n/m"),
        ("zip://::/d/x.zip", "zip://", "zip://::/d/x.zip", "zip://n/m::/d/x.zip"),
        ("zip://a::/d/x.zip", "zip://a", "zip://::/d/x.zip", "zip://a/n/m::/d/x.zip"),
        (
            "simplecache::zip://a/b::https://h.org/x.zip",
            "zip://a/b",
            "simplecache::zip://a::https://h.org/x.zip",
            "simplecache::zip://a/b/n/m::https://h.org/x.zip",
        ),
        ("simplecache::s3://b/x.tar", "s3://b/x.tar", "simplecache::s3://b", "simplecache::s3://b/x.tar/n/m"),
    ],
)
def test_the_files_own_link_is_the_first_with_a_path(uri: str, own: str, folder: str, inner: str) -> None:
    assert (own_link(uri), folder_of(uri), below(uri, "n/m")) == (own, folder, inner)


def test_keys_of_urls() -> None:
    assert image_key("zip://a/1.jpg::https://h.org/x.zip") == "a/1"
    assert image_key("simplecache::https://h.org/a/1.jpg") == "h.org/a/1"
    assert image_key("https://h.org/a::b.jpg") == "h.org/a::b"  # two colons in a path
    assert image_key("https://archive.org/web/http://h.org/a.jpg") == "h.org/a"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A zip with images in it and below, and a list of some."""
    names = ("a.jpg", "b/c.png", "b/d e/\u00e9.jpg")
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, name)
        file.writestr("b/list.txt", "c.png\nd e/\u00e9.jpg\n")
    return tmp_path / "x.zip"


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("", {"a": "a.jpg", "b/c": "b/c.png", "b/d e/\u00e9": "b/d e/\u00e9.jpg"}),
        ("b", {"c": "b/c.png", "d e/\u00e9": "b/d e/\u00e9.jpg"}),
        ("b/c.png", {"c": "b/c.png"}),
        ("b/list.txt", {"c": "b/c.png", "d e/\u00e9": "b/d e/\u00e9.jpg"}),
    ],
)
def test_what_is_in_a_zip_is_found_where_it_is(archive: Path, place: str, found: dict[str, str]) -> None:
    """Every file's URL ended in the archive's path once, so that all of them were missing."""
    refs = list(list_images(f"zip://{place}::{archive}"))
    assert {ref.key: read_image_bytes(ref).decode() for ref in refs} == found


def test_what_is_no_zip_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("hello")
    with pytest.raises(InputError, match=r"cannot look at .*BadZipFile: File is not a zip file"):
        list(list_images(f"zip://::{tmp_path}/x.zip"))
