"""Silver parses in the notation of `given_parses`, for the tests of what trains the caption parser."""

from __future__ import annotations

from mvptr_data.scene_graphs.silver import SilverParse
from mvptr_data.scene_graphs.tokens import ParsedCaption
from tests.mvptr_data.scene_graphs.given_parses import read_parse


def silver(text: str) -> SilverParse:
    """The silver parse that `text` writes down, with single spaces between its words."""
    return as_silver(read_parse(text))


def as_silver(caption: ParsedCaption) -> SilverParse:
    return SilverParse(
        source="test",
        words=tuple(caption.words),
        spaces=(*[True] * (len(caption) - 1), False),
        tags=tuple(caption.tags),
        heads=tuple(caption.heads),
        deps=tuple(caption.deps),
    )


def written(parse: SilverParse) -> str:
    """The notation of a parse."""
    tokens = zip(parse.words, parse.tags, parse.deps, parse.heads, strict=True)
    return " ".join(f"{word}/{tag}/{label}>{head}" for word, tag, label, head in tokens)
