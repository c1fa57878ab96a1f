"""The names of the files of a data set, and the format versions this release writes and reads.

See README.md beside this file for the folder as a whole. Anything that changes what these names or versions mean is a
FORMAT change in CHANGELOG.md.
"""

from __future__ import annotations

import re
from typing import Any

from mvptr_data.errors import FormatVersionError

#: format name -> (version written, versions read)
FORMATS: dict[str, tuple[int, frozenset[int]]] = {
    "plan": (2, frozenset({2})),
    "field": (1, frozenset({1})),
    "receipt": (1, frozenset({1})),
    "regions": (1, frozenset({1})),
    "text": (1, frozenset({1})),
    "captions": (1, frozenset({1})),
    "phrase_vocab": (2, frozenset({1, 2})),
    "phrase_counts": (1, frozenset({1})),
    "manifest": (2, frozenset({2})),
}

PLAN = "plan/plan.json"
INDEX = "index.parquet"
SAMPLES = "samples.parquet"
IMAGE_IDS = "image_ids.parquet"
SAME_IMAGES = "same_images.parquet"
#: The samples in brief, published with the manifest.
SAMPLE_FILES = (SAMPLES, IMAGE_IDS, SAME_IMAGES)
MANIFEST = "manifest.json"
PHRASE_VOCAB = "phrase_vocab.parquet"
PHRASE_COUNTS = "phrase_counts.parquet"
CAPTIONS = "captions/captions.json"
CAPTION_FAULTS = "captions/faults.parquet"
UNMATCHED = "captions/unmatched.parquet"


def version(format_name: str) -> int:
    """The version of a format that this release writes."""
    return FORMATS[format_name][0]


def check_version(format_name: str, found: Any, where: str) -> None:
    """Raises `FormatVersionError` naming the version found in `where` and those this release reads."""
    readable = FORMATS[format_name][1]
    if type(found) is not int or found not in readable:
        raise FormatVersionError(
            f"{where} has {format_name} format version {found!r}; this release reads {sorted(readable)}",
            "Read it with the release that wrote it, or write it again with this one.",
        )


def plan_shard(shard: int) -> str:
    return f"plan/{shard:05d}.parquet"


def receipt(field: str, shard: int) -> str:
    return f"{field}/{shard:05d}.json"


def shard_file(field: str, shard: int, generation: int, suffix: str) -> str:
    """Generation 0 is `regions/00012.tar`, later ones `regions/00012.g1.tar`."""
    mark = f".g{generation}" if generation else ""
    return f"{field}/{shard:05d}{mark}.{suffix}"


def shard_number(base_name: str) -> int | None:
    """The shard that a file of a field's folder belongs to, by its base name: `00012.g1.tar` -> 12; None for other files."""
    number = base_name.partition(".")[0]
    return int(number) if re.fullmatch(r"[0-9]{5,}", number) else None


def generation(base_name: str) -> int | None:
    """The generation of a shard's tar or parquet, by its base name: `00012.g1.tar` -> 1; None for other files."""
    found = re.fullmatch(r"[0-9]{5,}(?:\.g([1-9][0-9]*))?\.(?:tar|parquet)", base_name)
    return None if found is None else int(found[1] or 0)


def field_state(field: str) -> str:
    return f"{field}/field.json"


def published_vocabulary(generation: int) -> str:
    """The phrase vocabulary that a generation of the text field was written with, kept beside it."""
    return f"text/phrase_vocab{f'.g{generation}' if generation else ''}.parquet"


def vocabulary_generation(name: str) -> int | None:
    """The generation that `published_vocabulary` makes this name from; None for any other name, wherever it may lead."""
    found = re.fullmatch(r"text/phrase_vocab(?:\.g([1-9][0-9]{0,8}))?\.parquet", name)
    return None if found is None else int(found[1] or 0)


def is_published_vocabulary(name: str) -> bool:
    return vocabulary_generation(name) is not None


def caption_bucket(bucket: int) -> str:
    return f"captions/{bucket:05d}.parquet"
