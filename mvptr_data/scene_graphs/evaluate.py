"""Agreement of a caption parser with its teacher on held-out silver parses, and its speed.

    python -m mvptr_data.scene_graphs.evaluate --silver ../shared/data/parser/silver.jsonl.gz

LAS and UAS are shares of tokens other than punctuation (the teacher's label `punct`) with the teacher's head and label,
or head; tag accuracy counts all tokens. Tokens are the teacher's. Captions a second are CPU seconds of this process,
from text.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc

from mvptr_data.scene_graphs.pipeline import BUNDLED_MODEL, load_pipeline
from mvptr_data.scene_graphs.silver import SilverParse, lower_case, split_silver, strip_final_period

#: The spellings in which the held-out captions are parsed.
SPELLINGS: dict[str, Callable[[SilverParse], SilverParse]] = {
    "as written": lambda parse: parse,
    "no final period": strip_final_period,
    "lower case": lower_case,
    "lower case, no final period": lambda parse: lower_case(strip_final_period(parse)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Shares in 0..1 of the teacher's decisions that the parser repeats."""

    las: float
    uas: float
    tags: float


def measure_agreement(nlp: Language, parses: Sequence[SilverParse]) -> Agreement:
    """Parses the teacher's tokens with `nlp` and compares."""
    docs = nlp.pipe(
        (Doc(nlp.vocab, words=list(parse.words), spaces=list(parse.spaces)) for parse in parses), batch_size=1000
    )
    labelled = attached = words = tagged = tokens = 0
    for doc, parse in zip(docs, parses, strict=True):
        for token, head, dep, tag in zip(doc, parse.heads, parse.deps, parse.tags, strict=True):
            tokens += 1
            tagged += token.tag_ == tag
            if dep != "punct":
                words += 1
                attached += token.head.i == head
                labelled += token.head.i == head and token.dep_ == dep
    return Agreement(las=labelled / words, uas=attached / words, tags=tagged / tokens)


def captions_a_second(nlp: Language, texts: Sequence[str]) -> float:
    """Captions tokenised, tagged and parsed in one second of CPU time."""
    start = time.process_time()
    for _ in nlp.pipe(texts, batch_size=1000):
        pass
    return len(texts) / (time.process_time() - start)


def evaluate(nlp: Language, held_out: Sequence[SilverParse]) -> dict[str, dict[str, float]]:
    """Agreement by spelling, rounded to 4 places."""
    result = {}
    for spelling, respell in SPELLINGS.items():
        agreement = measure_agreement(nlp, [respell(parse) for parse in held_out])
        result[spelling] = {name: round(value, 4) for name, value in asdict(agreement).items()}
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(
        prog="python -m mvptr_data.scene_graphs.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--silver", type=Path, required=True, help="gzipped JSON lines of parses")
    options.add_argument(
        "--model", default=str(BUNDLED_MODEL), help="directory or name of a spaCy pipeline (default: the bundled one)"
    )
    given = options.parse_args(arguments)
    nlp = load_pipeline(given.model)
    _, held_out = split_silver(given.silver)
    print(f"{len(held_out)} held-out captions, parser {given.model}")
    print(f"{'spelling':30} {'LAS':>6} {'UAS':>6} {'tags':>6}")
    for spelling, scores in evaluate(nlp, held_out).items():
        print(f"{spelling:30} " + " ".join(f"{100 * scores[name]:6.2f}" for name in ("las", "uas", "tags")))
    texts = [parse.text() for parse in held_out]
    captions_a_second(nlp, texts[:200])
    print(f"{captions_a_second(nlp, texts):.0f} captions/s of CPU time, from text to parse")


if __name__ == "__main__":
    main()
