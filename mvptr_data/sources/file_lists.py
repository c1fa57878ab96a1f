"""File lists: one image (or tar) a line.

A line is a path or URL, or one with a key of the user's choice after a tab. Blank lines and lines that start with # say nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from mvptr_data.errors import InputError, SampleFault
from mvptr_data.keys import key_of
from mvptr_data.sources.archives import is_archive, is_compressed_archive, list_archive, refuse_compressed
from mvptr_data.sources.files import absolute, check_backend, open_file
from mvptr_data.sources.refs import ImageRef, image_key, make_ref, without_current_folder
from mvptr_data.sources.urls import below, folder_of, own_link
from mvptr_data.storage import is_url

LIST_SUFFIXES = (".txt", ".lst")


def is_file_list(name: str) -> bool:
    return name.lower().endswith(LIST_SUFFIXES)


def list_file_list(uri: str, split: str | None, root: str | None) -> Iterator[ImageRef]:
    """The images that a list names, in its order.

    A relative line is relative to the list's own folder, and its key is its path. An absolute line must lie in `root` (default:
    the list's folder), and its key is relative to that. A URL's key is relative to `root` where it lies in it, else host and
    path. Raises `InputError` where the list cannot be read, `MissingDependencyError` for a URL whose package is not installed.
    """
    folder = folder_of(uri)
    inside = f"{(absolute(root) if root else folder).rstrip('/')}/"
    known_protocols: set[str] = set()
    try:
        with open_file(uri) as file:
            for raw in file:
                line = raw.decode("utf-8", "surrogateescape").removeprefix("\ufeff").strip()
                if not line or line.startswith("#"):
                    continue
                path, tab, given_key = line.partition("\t")
                path = path.strip()
                if is_url(path) and (protocol := path.partition("://")[0]) not in known_protocols:
                    check_backend(path)
                    known_protocols.add(protocol)
                yield from _line_refs(path, given_key.strip() if tab else None, folder, inside, split)
    except OSError as error:
        raise InputError(
            f"cannot read the file list {uri!r}: {error}", "Check the path and its permissions."
        ) from error


def _line_refs(path: str, given_key: str | None, folder: str, inside: str, split: str | None) -> Iterator[ImageRef]:
    target = path if is_url(path) or path.startswith("/") else below(folder, without_current_folder(path))
    own = own_link(path)
    if is_compressed_archive(own):
        yield refuse_compressed(target, path, split)
    elif is_archive(own) and given_key is None:
        yield from list_archive(target, path, split)
    elif is_archive(own):
        message = f"the key {given_key!r} is given to an archive, whose members have keys of their own"
        yield make_ref(path, target, split=split, fault=SampleFault("broken_record", message))
    elif given_key is not None:
        yield make_ref(unicodedata.normalize("NFC", given_key), target, split=split)
    elif path.startswith(inside):
        yield make_ref(key_of(path[len(inside) :]), target, split=split)
    elif path.startswith("/"):
        message = f"{path!r} is outside {inside!r}, which keys are relative to; give a folder that holds it with --root"
        yield make_ref(path, target, split=split, fault=SampleFault("unsafe_key", message))
    elif is_url(path):
        yield make_ref(image_key(path), target, split=split)
    else:
        yield make_ref(key_of(without_current_folder(path)), target, split=split)
