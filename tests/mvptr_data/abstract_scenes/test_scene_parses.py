"""The truth and the bundled parser, made independently after one specification, agree on the world's captions."""

from __future__ import annotations

from mvptr_data.abstract_scenes import generate_scene
from mvptr_data.scene_graphs import load_parser


def test_the_parser_finds_what_the_captions_claim() -> None:
    captions = [caption for index in range(80) for caption in generate_scene(31, index).captions]
    parsed = load_parser().phrases([caption.text for caption in captions])
    shared = found = claimed = 0
    for caption, phrases in zip(captions, parsed, strict=True):
        truth = {phrase.words for phrase in caption.phrases}
        shared += len(truth & set(phrases))
        found += len(phrases)
        claimed += len(truth)
    assert shared / found > 0.96
    assert shared / claimed > 0.96
