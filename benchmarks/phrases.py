"""Captions a second from text to phrases, by phase, against SceneGraphParser on the same model.

    python benchmarks/phrases.py --quick
    python benchmarks/phrases.py --json phrases.json

CPU seconds of one thread. SceneGraphParser takes one text at a time, as its README uses it, and keeps spaCy's tagger, parser
and lemmatizer running in it; "piped" gives its rules the documents of `nlp.pipe`. Ours runs the tagger and parser on batches.
Rounds alternate and the best counts: other work on the machine only slows down. The captions are COCO val2017's where
`../shared` is, else those of abstract scenes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from itertools import count, islice
from pathlib import Path

import sng_parser
import spacy
from harness import Row, arguments, best_rates, compared, report

from mvptr_data.abstract_scenes import generate_scene
from mvptr_data.scene_graphs import load_parser
from mvptr_data.scene_graphs.facts import find_profile
from mvptr_data.scene_graphs.lemmas import Lemmatizer
from mvptr_data.scene_graphs.phrases import find_phrases
from mvptr_data.scene_graphs.pipeline import BUNDLED_MODEL, load_pipeline
from mvptr_data.scene_graphs.rules import find_facts
from mvptr_data.scene_graphs.sng import load_rules
from mvptr_data.scene_graphs.tokens import ParsedCaption

COCO = Path(__file__).resolve().parents[2] / "shared" / "data" / "captions" / "captions_val2017.json"
PEER, PIPED = "SceneGraphParser, end to end", "SceneGraphParser, piped"


def read_captions(number: int) -> list[str]:
    """The first captions of COCO val2017, or of drawn scenes where it is not there."""
    if COCO.is_file():
        annotations = json.loads(COCO.read_text(encoding="utf-8"))["annotations"]
        return [annotation["caption"] for annotation in annotations[:number]]
    drawn = (caption.text for index in count() for caption in generate_scene(0, index).captions)
    return list(islice(drawn, number))


def measure(captions: Sequence[str], rounds: int) -> list[Row]:
    """The best of `rounds` for every phase."""
    parser, pipeline = load_parser(), load_pipeline()
    peer = sng_parser.Parser("spacy", model=str(BUNDLED_MODEL))
    whole_pipeline, its_rules = spacy.load(BUNDLED_MODEL), load_rules()
    lemmas, profile = Lemmatizer.bundled(), find_profile("paper")
    parsed = list(parser.parse(captions))

    def apply_rules() -> None:
        for caption in parsed:
            # Rules correct tags and heads and remember subjects in place: each round starts from a fresh copy.
            fresh = ParsedCaption(
                caption.words, list(caption.tags), list(caption.deps), list(caption.heads), caption.starts
            )
            find_phrases(find_facts(fresh, lemmas, profile))

    # SceneGraphParser is slow enough that a part of the captions tells its speed.
    few = captions[: max(1, len(captions) // 4)]
    jobs: dict[str, tuple[Callable[[], object], float]] = {
        "tokenize": (lambda: [pipeline.make_doc(caption) for caption in captions], len(captions)),
        "tokenize, tag, parse": (lambda: list(parser.parse(captions)), len(captions)),
        "rules and lemmas": (apply_rules, len(captions)),
        "ours, end to end": (lambda: parser.phrases(captions), len(captions)),
        PEER: (lambda: [peer.parse(caption) for caption in few], len(few)),
        PIPED: (lambda: [its_rules(doc) for doc in whole_pipeline.pipe(few)], len(few)),
    }
    rates = best_rates(jobs, rounds=rounds, clock=time.process_time)
    rows = compared(rates, "captions/s", {"ours, end to end": PEER})
    ratio = round(rates["ours, end to end"] / rates[PIPED], 2)
    return [
        *rows,
        Row(
            name="ours, end to end",
            value=round(rates["ours, end to end"], 1),
            unit="captions/s",
            peer=PIPED,
            ratio=ratio,
        ),
    ]


def main() -> None:
    """Measure, print the table, write the rows."""
    options = arguments(__doc__).parse_args()
    captions = read_captions(400 if options.quick else 6_000)
    rows = measure(captions, rounds=2 if options.quick else 5)
    report(f"{len(captions)} captions, CPU seconds of one thread", rows, options.json)


if __name__ == "__main__":
    main()
