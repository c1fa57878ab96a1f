"""Images in a folder, local or remote, with everything below it; tars met on the way are opened."""

from __future__ import annotations

from collections.abc import Iterator

from mvptr_data.errors import SampleFault
from mvptr_data.keys import key_of
from mvptr_data.sources.archives import is_archive, is_compressed_archive, list_archive, refuse_compressed
from mvptr_data.sources.files import walk
from mvptr_data.sources.refs import ImageRef, has_image_suffix, make_ref


def list_folder(root: str, split: str | None) -> Iterator[ImageRef]:
    """Images by code points of their relative paths; a tar's members come in its order, where the tar's path would.

    Raises `InputError` where `root` itself cannot be read.
    """
    for found in walk(root, _wanted):
        if found.problem is not None:
            yield make_ref(found.path, found.uri, split=split, fault=SampleFault("missing_file", found.problem))
        elif is_archive(found.path):
            yield from list_archive(found.uri, found.path, split)
        elif is_compressed_archive(found.path):
            yield refuse_compressed(found.uri, found.path, split)
        else:
            yield make_ref(key_of(found.path), found.uri, split=split)


def _wanted(name: str) -> bool:
    return has_image_suffix(name) or is_archive(name) or is_compressed_archive(name)
