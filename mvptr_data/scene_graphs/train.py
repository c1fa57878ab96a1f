"""Trains the bundled caption parser from silver parses.

    python -m mvptr_data.scene_graphs.train --silver ../shared/data/parser/silver.jsonl.gz --output /tmp/model

One tok2vec (hashed embeddings, 4 convolutions of width 96) is shared by a Penn Treebank tagger and an arc-eager
dependency parser with ClearNLP labels; universal tags and lemmas come from tables. Every epoch sees each caption in a
new spelling (see `silver.vary`). One thread; the result is a function of the data, the options and the versions of
spaCy and thinc.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import spacy
from spacy.language import Language
from spacy.training import Example
from spacy.util import fix_random_seed
from thinc.api import Adam
from thinc.schedules import warmup_linear

from mvptr_data.errors import InputError
from mvptr_data.scene_graphs.architecture import build_pipeline, compact, lemma_tables
from mvptr_data.scene_graphs.evaluate import evaluate
from mvptr_data.scene_graphs.repairs import mend
from mvptr_data.scene_graphs.silver import SilverParse, add_final_period, split_silver, to_example, vary
from mvptr_data.scene_graphs.tagset import add_universal_tags

#: Version of the bundled model, written to its meta.json.
MODEL_VERSION = "1.0.0"
#: The repository's promise about the bundled directory.
MAX_BYTES = 10_000_000


def batches(parses: Sequence[SilverParse], nlp: Language, rng: random.Random, words: int) -> Iterator[list[Example]]:
    """One epoch in random order and spelling, about `words` words a batch."""
    order = list(parses)
    rng.shuffle(order)
    batch: list[Example] = []
    size = 0
    for parse in order:
        batch.append(to_example(vary(parse, rng), nlp.vocab))
        size += len(parse.words)
        if size >= words:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def train(nlp: Language, parses: Sequence[SilverParse], *, epochs: int, seed: int, words: int, rate: float) -> None:
    """Trains in place; prints one plain line an epoch.

    The learning rate rises over the first 250 steps and falls linearly to zero.
    """
    # spaCy draws initial weights and dropout from numpy's global state; everything else here has its own generator.
    fix_random_seed(seed)
    rng = random.Random(seed)
    lemmas = lemma_tables()
    nlp.get_pipe("lemmatizer").initialize(lookups=lemmas)  # type: ignore[attr-defined]
    add_universal_tags(nlp.get_pipe("attribute_ruler"))  # type: ignore[arg-type]
    trained = ["tok2vec", "tagger", "parser"]
    steps = epochs * (sum(len(parse.words) for parse in parses) // words + 1)
    schedule = warmup_linear(rate, 250, steps)
    optimizer = Adam(learn_rate=schedule, L2=0.01, grad_clip=1.0, use_averages=False)  # type: ignore[arg-type]
    with nlp.select_pipes(enable=trained):
        nlp.initialize(lambda: [to_example(add_final_period(parse), nlp.vocab) for parse in parses])
        for epoch in range(1, epochs + 1):
            start = time.process_time()
            losses: dict[str, float] = {}
            for batch in batches(parses, nlp, rng, words):
                nlp.update(batch, sgd=optimizer, losses=losses, drop=0.1)
                optimizer.step_schedules()
            shown = ", ".join(f"{name} {losses[name]:.0f}" for name in ("tagger", "parser"))
            print(f"epoch {epoch} of {epochs}: losses {shown}; {time.process_time() - start:.0f} CPU s", flush=True)


def save(nlp: Language, output: Path) -> None:
    """Writes the pipeline beside `output` and renames it into place; `InputError` where it exceeds `MAX_BYTES`."""
    part = output.with_name(output.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    nlp.to_disk(part)
    size = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
    if size > MAX_BYTES:
        raise InputError(f"the model takes {size} bytes, over the limit of {MAX_BYTES}", "Use a smaller --width.")
    shutil.rmtree(output, ignore_errors=True)
    part.rename(output)
    print(f"{output}: {size / 1e6:.2f} MB")


def describe(nlp: Language, given: argparse.Namespace, scores: dict[str, dict[str, float]]) -> None:
    """Fills the pipeline's meta.json: what it is, what it was made from, and what it scored."""
    silver = hashlib.sha256(given.silver.read_bytes()).hexdigest()
    settings = ("epochs", "seed", "width", "depth", "words", "rate")
    options = " ".join(f"--{name} {getattr(given, name)}" for name in settings)
    command = f"python -m mvptr_data.scene_graphs.train --silver SILVER --output DIR {options}"
    nlp.meta.update(
        name="mvptr_captions",
        version=MODEL_VERSION,
        spacy_version=">=3.8,<4",  # as in pyproject.toml; spaCy itself would ask for the version that trained
        description="Image captions to Penn Treebank tags and ClearNLP dependencies",
        license="MIT; lemma tables: WordNet 3.0 license",
        sources=[
            {
                "name": "silver parses of COCO val2017, Visual Genome and SugarCrepe captions",
                "license": "CC BY 4.0 / MIT",
            },
            {"name": "en_core_web_sm 2.2.5 (Explosion), the teacher", "license": "MIT"},
            {"name": "spacy-lookups-data (WordNet 3.0)", "license": "WordNet 3.0"},
        ],
        training={"command": command, "silver_sha256": silver},
        performance=scores,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(
        prog="python -m mvptr_data.scene_graphs.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--silver", type=Path, required=True, help="gzipped JSON lines of parses")
    options.add_argument(
        "--output", type=Path, required=True, help="directory to write the pipeline to; replaced if there"
    )
    options.add_argument(
        "--epochs", type=int, default=11, help="passes over the captions (default 11, the bundled model's)"
    )
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--width", type=int, default=96, help="width of the shared convolutions (default 96)")
    options.add_argument("--depth", type=int, default=4, help="number of the shared convolutions (default 4)")
    options.add_argument("--words", type=int, default=1000, help="words in a batch (default 1000)")
    options.add_argument("--rate", type=float, default=0.002, help="highest learning rate (default 0.002)")
    options.add_argument(
        "--limit", type=int, default=None, help="train on the first so many captions only (for a trial)"
    )
    given = options.parse_args(arguments)
    training, held_out = split_silver(given.silver)
    print(f"{len(training)} training and {len(held_out)} held-out captions, spaCy {spacy.__version__}", flush=True)
    training = [mend(parse) for parse in training[: given.limit]]
    nlp = build_pipeline(given.width, given.depth)
    train(nlp, training, epochs=given.epochs, seed=given.seed, words=given.words, rate=given.rate)
    small = compact(nlp, given.width, given.depth)
    scores = evaluate(small, held_out)
    print(json.dumps(scores, indent=1))
    describe(small, given, scores)
    save(small, given.output)


if __name__ == "__main__":
    main()
