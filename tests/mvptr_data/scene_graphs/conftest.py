"""Parsers that the tests of captions share."""

from __future__ import annotations

import pytest

from mvptr_data.scene_graphs import CaptionParser, load_parser


@pytest.fixture(scope="session")
def bundled_parser() -> CaptionParser:
    return load_parser()


@pytest.fixture(scope="session")
def official_parser() -> CaptionParser:
    return load_parser(profile="official")
