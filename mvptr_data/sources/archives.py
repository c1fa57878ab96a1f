"""Images in tars: webdataset shards, img2dataset's output, any plain tar."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from itertools import takewhile

from mvptr_data.errors import SampleFault
from mvptr_data.keys import key_of
from mvptr_data.sources.files import is_nothing_there, listing_ended, open_file
from mvptr_data.sources.refs import ImageRef, has_image_suffix, is_hidden, make_ref, without_current_folder
from mvptr_data.sources.remote import UnreadableError
from mvptr_data.sources.tar_headers import TarMember, scan_tar

ARCHIVE_SUFFIX = ".tar"
COMPRESSED_ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


def is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVE_SUFFIX)


def is_compressed_archive(name: str) -> bool:
    return name.lower().endswith(COMPRESSED_ARCHIVE_SUFFIXES)


def list_archive(uri: str, path: str, split: str | None) -> Iterator[ImageRef]:
    """The images of a tar, in its order, keyed by member name. `path` is the key of what is wrong with the tar itself.

    A torn tar yields the members before the damage, then one fault that says at which byte it is. Raises `InputError` where
    a server fails on the way: its other members would be missing from the plan for ever.
    """
    try:
        with open_file(uri) as file:
            for member in scan_tar(file):
                if has_image_suffix(member.name) and not member.is_folder and not is_hidden(member.name):
                    yield _member_ref(uri, member, split)
    except SampleFault as fault:
        yield make_ref(path, uri, split=split, fault=fault)
    except UnreadableError as error:
        raise listing_ended(uri, error) from error
    except (OSError, ValueError, ImportError) as error:
        fault_class = "missing_file" if is_nothing_there(error) else "unreadable_file"
        yield make_ref(path, uri, split=split, fault=SampleFault(fault_class, f"cannot read the archive: {error}"))


def refuse_compressed(uri: str, path: str, split: str | None) -> ImageRef:
    """The fault of a compressed tar met in a folder or list."""
    fault = SampleFault(
        "missing_file", "the archive is compressed, so no member can be read alone; decompress it to a .tar"
    )
    return make_ref(path, uri, split=split, fault=fault)


def _member_ref(uri: str, member: TarMember, split: str | None) -> ImageRef:
    fault = None
    if not member.is_file:
        fault = SampleFault("missing_file", f"the member {member.name!r} is a link or device, not a file")
    elif member.is_cut:
        fault = SampleFault("torn_archive", f"the archive ends within the member {member.name!r}")
    return make_ref(
        key_of(without_current_folder(member.name)),
        uri,
        split=split,
        member=member.name,
        offset=member.offset,
        size=member.size,
        fault=fault,
    )


def check_member(header: bytes, member: str, size: int) -> None:
    """Raises `SampleFault` `torn_archive` where `header`, the block before a member's data, is not the one that was listed."""
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        info = None
    # Where a pax record has the size, the header's may be 0.
    if info is None or not info.isreg() or info.size not in (size, 0) or not _may_name(info.name, member):
        raise SampleFault("torn_archive", "the archive changed since it was listed")


def _may_name(name: str, member: str) -> bool:
    """Whether a header with the name `name` may be that of `member`.

    It is the same name but where an extension header before it has the real one: then it is shortened, by its end or within
    (`folder/` and the start of the last part), or letters outside ASCII are replaced, which every program does in its own way.
    """
    if name == member:
        return True
    is_short = len(member.encode("utf-8", "surrogateescape")) <= tarfile.LENGTH_NAME
    if member.isascii() or not (name.isascii() or _has_stray_bytes(name)):
        folder, slash, last = name.rpartition("/")
        is_within = member.startswith(folder + slash) and member.rpartition("/")[2].startswith(last)
        return not is_short and (member.startswith(name) or is_within)
    return not is_short or name.startswith("".join(takewhile(str.isascii, member)))


def _has_stray_bytes(name: str) -> bool:
    """Whether a name was not UTF-8, or was cut within a letter."""
    return any("\udc80" <= letter <= "\udcff" for letter in name)
