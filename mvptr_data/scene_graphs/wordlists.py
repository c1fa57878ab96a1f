"""The word lists that rules consult: text files in `words/`, one entry a line, `#` opens a comment."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent / "words"


def read_words(name: str) -> frozenset[str]:
    """The entries of `words/{name}.txt`."""
    lines = (DIRECTORY / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))
