"""Images: listing them, and reading the bytes of one.

`list_images` finds out by itself what it is given: a folder, a tar, a file list or a single image, on disk or behind a URL.
"""

from __future__ import annotations

import errno
import tarfile
from collections.abc import Iterator

from mvptr_data.errors import InputError, SampleFault
from mvptr_data.keys import key_of
from mvptr_data.sources.archives import check_member, is_archive, is_compressed_archive, list_archive
from mvptr_data.sources.file_lists import LIST_SUFFIXES, is_file_list, list_file_list
from mvptr_data.sources.files import absolute, is_nothing_there, kind_of, read_file, read_range
from mvptr_data.sources.folders import list_folder
from mvptr_data.sources.refs import IMAGE_SUFFIXES, ImageRef, has_image_suffix, make_ref
from mvptr_data.sources.urls import own_link

__all__ = ["IMAGE_SUFFIXES", "ImageRef", "list_images", "read_image_bytes"]

#: A file of more bytes is not read: uncompressed 16-bit RGBA of 100 million pixels has 0.8e9.
MAX_IMAGE_BYTES = 1 << 30


def list_images(images: str, *, split: str | None = None, root: str | None = None) -> Iterator[ImageRef]:
    """Every image of a folder, tar, file list or image file, in an order that depends on nothing but the input.

    `split` is noted on every image. `root` is for file lists: the folder that keys of absolute lines are relative to.
    What is wrong with a single file or member is the `fault` of its reference. Keys may repeat; the plan finds that.
    Raises `InputError` for a path that is not there, is of no known kind, or holds no image.
    """
    path = absolute(images)
    own = own_link(path)
    kind = kind_of(path)
    if kind is None:
        raise InputError(f"there is no file or folder {images!r}", "Check the path.")
    if root is not None and (kind == "folder" or not is_file_list(own)):
        raise InputError(f"--root is given, but {images!r} is not a file list", "Leave --root out.")
    name = own.rpartition("/")[2]
    if kind == "folder":
        refs = list_folder(path, split)
    elif is_compressed_archive(own):
        raise InputError(
            f"{images!r} is a compressed archive, so no image in it can be read alone", "Decompress it to a .tar."
        )
    elif is_archive(own):
        refs = list_archive(path, name, split)
    elif is_file_list(own):
        refs = list_file_list(path, split, root)
    elif has_image_suffix(own):
        refs = iter([make_ref(key_of(name), path, split=split)])
    else:
        raise InputError(
            f"{images!r} is no folder, .tar, file list ({', '.join(LIST_SUFFIXES)}) or image ({', '.join(IMAGE_SUFFIXES)})",
            "Give one of these.",
        )
    return _at_least_one(refs, images)


def read_image_bytes(ref: ImageRef) -> bytes:
    """The encoded bytes of an image.

    Raises `SampleFault`: the reference's own fault, `missing_file`, `unreadable_file` (for URLs after several attempts),
    `empty_file`, `torn_archive` where the archive is not the one that was listed, `too_large` over `MAX_IMAGE_BYTES`.
    """
    if ref.fault is not None:
        raise SampleFault(ref.fault, ref.message or "found when the images were listed")
    if ref.size is not None and ref.size > MAX_IMAGE_BYTES:
        raise _too_large()
    try:
        if ref.member is None or ref.offset is None or ref.size is None:
            data = read_file(ref.uri, MAX_IMAGE_BYTES)
        else:
            data = _read_member(ref.uri, ref.member, ref.offset, ref.size)
    except (OSError, ValueError, ImportError) as error:
        if getattr(error, "errno", None) == errno.EFBIG:
            raise _too_large() from error
        # The place is in the plan; left out here, the same faults give the same bytes wherever the input lies.
        fault_class = "missing_file" if is_nothing_there(error) else "unreadable_file"
        raise SampleFault(
            fault_class, f"the file cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not data:
        raise SampleFault("empty_file", "the file has no bytes")
    return data


def _read_member(uri: str, member: str, offset: int, size: int) -> bytes:
    """A member's data, read together with the header before them: an archive may be written anew after it was listed."""
    found = read_range(uri, offset - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE + size)
    if len(found) >= tarfile.BLOCKSIZE:
        check_member(found[: tarfile.BLOCKSIZE], member, size)
    data = found[tarfile.BLOCKSIZE :]
    if len(data) < size:
        raise SampleFault(
            "torn_archive", f"the archive has {len(data)} of the {size} bytes of {member!r} at byte {offset}"
        )
    return data


def _too_large() -> SampleFault:
    return SampleFault("too_large", f"the file has more bytes than the limit of {MAX_IMAGE_BYTES:,}")


def _at_least_one(refs: Iterator[ImageRef], images: str) -> Iterator[ImageRef]:
    first = next(refs, None)
    if first is None:
        raise InputError(
            f"no images found in {images!r}",
            f"Looked for {', '.join(IMAGE_SUFFIXES)} (any case), also in .tar files and below; hidden files are left out.",
        )
    yield first
    yield from refs
