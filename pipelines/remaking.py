"""What of a data set has to be made again, why, and by which command."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import FIELDS, REGIONS, TEXT
from mvptr_data.dataset.plan import Plan, PlanPart
from mvptr_data.dataset.verify import Finding
from mvptr_data.storage import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaking:
    """A file that repair cannot make again: `why`, and the `command` that can. `field` and `shard` where it is a shard's."""

    file: str
    why: str
    command: str
    field: str | None = None
    shard: int | None = None

    def __str__(self) -> str:
        return f"{self.file}: {self.why}. {self.command}"


def remakings(store: Store, plan: Plan, findings: Iterable[Finding]) -> list[Remaking]:
    """What to make again after these findings: one entry a shard of a field, one for each other file."""
    found: dict[str | tuple[str, int], list[Finding]] = {}
    for finding in findings:
        found.setdefault(_shard_of(finding.file) or finding.file, []).append(finding)
    return [_remaking(store, plan, of, alike) for of, alike in found.items()]


def _remaking(store: Store, plan: Plan, of: str | tuple[str, int], alike: list[Finding]) -> Remaking:
    first = alike[0]
    why = first.message.rstrip(".") + (f" (and {len(alike) - 1} more)" if len(alike) > 1 else "")
    if isinstance(of, str):
        return Remaking(file=first.file, why=why, command=_file_command(store, first.file, plan))
    field, shard = of
    remove = (
        f"remove {layout.receipt(field, shard)}, then run " if store.exists(layout.receipt(field, shard)) else "run "
    )
    command = f"To make it again, {remove}{_shard_command(store, field, shard, plan)}"
    return Remaking(file=first.file, why=why, command=command, field=field, shard=shard)


def _shard_of(file: str) -> tuple[str, int] | None:
    """The field and shard that a file belongs to, if it belongs to one."""
    folder, _, base = file.partition("/")
    shard = layout.shard_number(base)
    return None if folder not in FIELDS or shard is None else (folder, shard)


def _shard_command(store: Store, field: str, shard: int, plan: Plan) -> str:
    if field == TEXT.name:
        return _write_shards(store)
    ends = (sum(part.shards for part in plan.parts[: number + 1]) for number in range(len(plan.parts)))
    part = next((part for part, end in zip(plan.parts, ends, strict=True) if shard < end), plan.parts[0])
    return f"{_source_command(store, part)} and {_write_shards(store)}"


def _file_command(store: Store, file: str, plan: Plan) -> str:
    """What makes a file again that is no shard's."""
    folder = file.partition("/")[0]
    if folder == "plan":
        return "Nothing makes it again, and reading does without: restore it from a copy, or extract into a new folder."
    build = _command("build-phrase-vocab", "CAPTIONS", store.root)
    if file == layout.UNMATCHED:
        return f"Remove it, then run {_write_shards(store)}"
    if folder == "captions":
        return f"Remove captions/, then run {build} and {_write_shards(store)}"
    if file in (layout.PHRASE_VOCAB, layout.PHRASE_COUNTS):
        return f"Remove it, then run {build}; what is parsed is kept"
    if file == layout.field_state(REGIONS.name):
        return f"Run {_source_command(store, plan.parts[0])}; what is finished is kept"
    return f"Run {_write_shards(store)}"


def _source_command(store: Store, part: PlanPart) -> str:
    """The command that fills regions from what a part of the plan lists, with the options of then where they matter."""
    images = str(part.source.get("images"))
    options = [f"--{name}={value}" for name in ("split", "root") if (value := part.source.get(name)) is not None]
    if "predictions" not in part.source:
        return f"{_command('extract-regions', images, store.root, *options)} with the options of then"
    files = [f"--{name}={value}" for name in ("predictions", "sizes") if (value := part.source.get(name)) is not None]
    return f"{_command('import-tsv', images, store.root, *files, *options)} with the options of then"


def _write_shards(store: Store) -> str:
    return _command("write-shards", store.root)


def _command(*words: str) -> str:
    return f"`mvptr-data {shlex.join(words)}`"
