"""Every error a user can meet, by type.

Two families, because they have different fates:

* `MvptrError` ends a command: it says what is wrong, which value, why, and how to mend it, in one line.
* `SampleFault` ends one sample: it is recorded in that sample's row under a class from `FAULT_CLASSES`, and the run goes on.
"""

from __future__ import annotations

#: Every class a sample can be recorded under, and what it means. A class not listed here is refused (see `SampleFault`).
FAULT_CLASSES = {
    "unsafe_key": "the key is absolute or empty, or has an empty, '.' or '..' part, a control character or one that turns text",
    "duplicate_key": "an earlier input has the same key; the first one is kept",
    "missing_file": "the file or archive member is not there, or is no regular file",
    "unreadable_file": "the file may be there, but could not be read: no permission, a failing disk, a server out of order",
    "torn_archive": "the archive breaks off (members before that place are used) or has changed since it was listed",
    "empty_file": "the file has no bytes",
    "not_an_image": "the bytes are no image format that Pillow reads",
    "torn_image": "the image's header is readable, its pixels are not",
    "too_large": "the image has more pixels than the limit (decompression bomb)",
    "too_small": "the image's shorter side is below the limit",
    "detector_error": "the detector failed on this image alone",
    "out_of_memory": "the image alone needs more memory than there is",
    "worker_killed": "the process ended, without a word, each time this image was tried",
    "no_captions": "the image has no usable caption",
    "empty_caption": "the caption has no text",
    "long_caption": "the caption is longer than a parser reads: what its first part says is used, the rest is not",
    "parser_error": "the caption parser failed on this caption alone, which has no phrases",
    "broken_record": "the line or record cannot be parsed, or lacks an image key or caption",
}


class MvptrError(Exception):
    """Ends the command. `message` says what, which value and why; `mend` says what to do about it.

    `exit_code`: the command's.
    """

    exit_code = 1

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message, mend)
        self.message = message
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.message.rstrip('.')}. {self.mend}".strip() if self.mend else self.message


class InputError(MvptrError):
    """A path, file or option given by the user cannot be used."""


class MissingDependencyError(MvptrError):
    """An optional package is needed and not installed."""


class FormatVersionError(MvptrError):
    """A file's format version is not one this release reads."""


class DamagedFileError(MvptrError):
    """A file's bytes, counts or digest are not what its receipt promises."""


class ConfigurationMismatchError(MvptrError):
    """A run was asked to continue work that was done under another configuration."""


class IncompleteError(MvptrError):
    """A step needs the finished output of an earlier step."""


class UnreachableError(MvptrError):
    """A server does not answer, or not as it should; what it has may be there all the same."""


class BusyError(MvptrError):
    """Another live run holds the output."""


class OutputError(MvptrError):
    """The output cannot be written: a full disk, a quota, a read-only folder."""


class FailureBudgetError(MvptrError):
    """More inputs failed than the run was allowed."""


class SampleFault(Exception):  # noqa: N818 - a recorded fact about a sample, not a program's error
    """Ends one sample, never the run.

    Raises `ValueError` at construction for a class that is not in `FAULT_CLASSES`, so that no fault is filed under a typo.
    """

    def __init__(self, fault_class: str, message: str) -> None:
        if fault_class not in FAULT_CLASSES:
            raise ValueError(
                f"unknown fault class {fault_class!r}; add it to FAULT_CLASSES or use one of {list(FAULT_CLASSES)}"
            )
        super().__init__(fault_class, message)
        self.fault_class = fault_class
        self.message = message

    def __str__(self) -> str:
        return f"{self.fault_class}: {self.message}"
