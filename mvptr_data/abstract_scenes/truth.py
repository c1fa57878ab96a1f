"""The truth of a world as JSON lines: a header, then one scene a line."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mvptr_data.abstract_scenes.records import GroundedPhrase, Relation, Scene, SceneCaption, Thing
from mvptr_data.errors import DamagedFileError, FormatVersionError, InputError
from mvptr_data.storage import canonical_json

FORMAT = "abstract scenes truth"
VERSION = 1


def scene_key(index: int) -> str:
    """The key of a world's scene: its index, in six digits or more."""
    return f"{index:06d}"


def truth_header(*, seed: int, count: int) -> bytes:
    """The first line of a truth file."""
    return canonical_json({"format": FORMAT, "version": VERSION, "seed": seed, "count": count}) + b"\n"


def truth_line(scene: Scene) -> bytes:
    """A scene's line of a truth file: every field of its records, and its key."""
    return canonical_json({"key": scene_key(scene.index), **asdict(scene)}) + b"\n"


def _thing(record: dict[str, Any]) -> Thing:
    x1, y1, x2, y2 = record["box"]
    return Thing(**{**record, "box": (x1, y1, x2, y2)})


def _caption(record: dict[str, Any]) -> SceneCaption:
    phrases = tuple(GroundedPhrase(words=tuple(p["words"]), things=tuple(p["things"])) for p in record["phrases"])
    return SceneCaption(text=record["text"], template=record["template"], phrases=phrases)


def _scene(record: dict[str, Any]) -> tuple[str, Scene]:
    fields = dict(record)
    key = fields.pop("key")
    fields["things"] = tuple(_thing(thing) for thing in fields["things"])
    fields["relations"] = tuple(Relation(**relation) for relation in fields["relations"])
    fields["captions"] = tuple(_caption(caption) for caption in fields["captions"])
    return key, Scene(**fields)


def read_truth(path: str | os.PathLike[str]) -> dict[str, Scene]:
    """The scenes of a truth file by image key, in order.

    Raises `InputError` where there is no such file, `FormatVersionError` for a version this release does not read, and
    `DamagedFileError` for a line that is no scene or a number of scenes other than the header's.
    """
    mend = "Draw the world again with write_world."
    try:
        lines = Path(path).read_bytes().splitlines()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"cannot read the truth file {os.fspath(path)!r}: {error.strerror}", mend) from error
    scenes: dict[str, Scene] = {}
    header: dict[str, Any] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if number == 1:
                header = {name: record[name] for name in ("format", "version", "count")}
            else:
                key, scene = _scene(record)
                scenes[key] = scene
        except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise DamagedFileError(
                f"{os.fspath(path)}, line {number}, is not a record of the truth: {error}", mend
            ) from error
        if number == 1 and (header["format"], header["version"]) != (FORMAT, VERSION):
            raise FormatVersionError(
                f"{os.fspath(path)} is {header['format']!r} version {header['version']!r}",
                f"This release reads {FORMAT!r} version {VERSION}. {mend}",
            )
    if len(scenes) != header.get("count"):
        raise DamagedFileError(f"{os.fspath(path)} holds {len(scenes)} scenes of {header.get('count')}", mend)
    return scenes
