"""A reference to one image: its key and where its bytes are.

Listing makes references, reading follows them. A reference that cannot be followed says so in `fault`; none is ever dropped.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from mvptr_data.errors import SampleFault
from mvptr_data.keys import check_key, key_of
from mvptr_data.sources.urls import own_link
from mvptr_data.storage import is_url

#: Names that are taken for images where nobody listed them one by one (folders, tars), in any case.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".jfif")

_CURRENT_FOLDER = re.compile(r"(?:\./+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """One image of the input, or one fault found while listing.

    `uri` is an absolute path or URL; for a tar's member it is the tar's, `member` the name in it, and `offset` and `size`
    (bytes) say where its data lie. `fault` is a class of `FAULT_CLASSES` known at listing time, `message` says why.
    """

    key: str
    uri: str
    member: str | None = None
    offset: int | None = None
    size: int | None = None
    split: str | None = None
    fault: str | None = None
    message: str | None = None


def make_ref(
    key: str,
    uri: str,
    *,
    split: str | None = None,
    member: str | None = None,
    offset: int | None = None,
    size: int | None = None,
    fault: SampleFault | None = None,
) -> ImageRef:
    """A reference under `key`. A fault known already stays; else an unsafe key is one."""
    if fault is None:
        try:
            check_key(key)
        except SampleFault as unsafe:
            fault = unsafe
    return ImageRef(
        key=key,
        uri=uri,
        member=member,
        offset=offset,
        size=size,
        split=split,
        fault=fault.fault_class if fault else None,
        message=fault.message if fault else None,
    )


def has_image_suffix(name: str) -> bool:
    """Whether a file's name ends like an image's."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_hidden(path: str) -> bool:
    """Whether a part of the path starts with a dot (`._x.jpg`, `.cache/x.jpg`); `.` and `..` are not hidden, but unsafe."""
    return any(part.startswith(".") and part not in (".", "..") for part in path.split("/"))


def without_current_folder(path: str) -> str:
    """`path` without a leading `./`, which names nothing."""
    match = _CURRENT_FOLDER.match(path)
    return path[match.end() :] if match else path


def image_key(name: str) -> str:
    """The key of an image named by a path, a URL or a bare identifier; not yet checked.

    The suffix goes where it is an image's (`a/x.v2.jpg` -> `a/x.v2`, but `x.v2` stays). A URL loses its scheme and fragment
    (`https://h.org/a/1.jpg` -> `h.org/a/1`); one with a query is kept to its end, for the query may be all that tells it. Of a
    chain the file's own link counts (`zip://a/1.jpg::https://h.org/x.zip` -> `a/1`).
    """
    if is_url(name):
        link = own_link(name) if name.count("://") > 1 else name  # with one, `::` may be a part of its path
        name = link.rpartition("://")[2].partition("#")[0]
    else:
        name = without_current_folder(name)
    return key_of(name) if has_image_suffix(name) else unicodedata.normalize("NFC", name)
