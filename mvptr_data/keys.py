"""Keys: what names a sample in every file of a data set.

A key is the path of an image relative to the input, without its last suffix, in Unicode NFC, with `/` between its parts.
Keys come from archives and file lists, so they are not trusted: `check_key` refuses what could leave a folder, and in tars
every byte outside `[A-Za-z0-9_/-]` is percent-encoded (`encode_key`), which also keeps webdataset's "split at the first dot"
from cutting a key in two.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from mvptr_data.errors import SampleFault

#: A tar name of at most this many bytes holds the encoded key itself; a longer key is named by its sha256.
MAX_ENCODED_BYTES = 200

_UNSAFE_BYTE = re.compile(rb"[^A-Za-z0-9_/-]")
#: C0 and C1 controls, which steer terminals, and what turns the direction of the text after it, so that a key reads as another.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_WINDOWS_DRIVE = re.compile(r"[A-Za-z]:")


def key_of(path: str) -> str:
    """The key of a relative path: NFC, the last suffix removed (`a/x.v2.jpg` -> `a/x.v2`, `.hidden` -> `.hidden`)."""
    folder, slash, name = unicodedata.normalize("NFC", path).rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    return f"{folder}{slash}{stem if dot and stem and suffix else name}"


def check_key(key: str) -> str:
    """Return `key` unchanged. Raises `SampleFault("unsafe_key")` for a key that is empty, absolute, or has odd parts."""
    reason = None
    if not key:
        reason = "is empty"
    elif key.startswith(("/", "\\")) or _WINDOWS_DRIVE.match(key):
        reason = "is absolute"
    elif any(part in ("", ".", "..") for part in re.split(r"[/\\]", key)):
        reason = "has an empty, '.' or '..' part"
    elif _CONTROL.search(key):
        reason = "has a control character"
    else:
        try:
            key.encode()
        except UnicodeEncodeError:
            reason = "is not valid Unicode (the file's name is not UTF-8)"
    if reason:
        raise SampleFault("unsafe_key", f"the key {key!r} {reason}")
    return key


def encode_key(key: str) -> str:
    """The key as a tar name: percent-encoded, or its sha256 (64 hex digits) where that is over 200 bytes.

    Any URL decoder gives a percent-encoded key back; the shard's parquet has every key as it is.
    """
    raw = key.encode()
    encoded = _UNSAFE_BYTE.sub(lambda match: b"%%%02X" % match[0][0], raw)
    return encoded.decode() if len(encoded) <= MAX_ENCODED_BYTES else hashlib.sha256(raw).hexdigest()
