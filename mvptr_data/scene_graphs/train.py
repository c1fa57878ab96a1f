"""Trains the bundled caption parser from silver parses, corrected by gold scene graphs.

    python -m mvptr_data.scene_graphs.train --silver ../shared/data/parser/silver.jsonl.gz \\
        --gold ../shared/data/scene_graphs/factual_train.csv \\
        --leave-out ../shared/data/scene_graphs/factual_dev.csv --output /tmp/model

One tok2vec (hashed embeddings and convolutions, see `architecture.Networks`) is shared by a Penn Treebank tagger and an
arc-eager dependency parser with ClearNLP labels; universal tags and lemmas come from tables. Every epoch sees each
caption in a new spelling (see `silver.vary`). One thread; the result is a function of the data, the options, the rules
(`graph_repairs` asks them) and the versions of spaCy, thinc and numpy.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import spacy
from spacy.language import Language
from spacy.training import Example
from spacy.util import fix_random_seed
from thinc.api import Adam
from thinc.schedules import warmup_linear

from mvptr_data.errors import InputError
from mvptr_data.scene_graphs.architecture import Networks, build_pipeline, compact, lemma_tables
from mvptr_data.scene_graphs.evaluate import evaluate
from mvptr_data.scene_graphs.gold_graphs import read_gold
from mvptr_data.scene_graphs.graph_repairs import GraphRepairs
from mvptr_data.scene_graphs.operations import multiply_with_numpy
from mvptr_data.scene_graphs.repairs import mend
from mvptr_data.scene_graphs.rules import RULES_VERSION
from mvptr_data.scene_graphs.silver import (
    SilverParse,
    add_final_period,
    caption_key,
    frequent_words,
    split_silver,
    to_example,
    vary,
)
from mvptr_data.scene_graphs.tagset import add_universal_tags

#: Version of the bundled model, written to its meta.json.
MODEL_VERSION = "2.0.0"
#: Passes over the captions that the bundled model was trained for.
EPOCHS = 6
#: The repository's promise about the bundled directory.
MAX_BYTES = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The files a model is trained on: silver parses, gold graphs that correct them, and graphs kept for measuring."""

    silver: Path
    gold: Path | None = None
    left_out: Path | None = None

    def parses(self) -> tuple[list[SilverParse], list[SilverParse]]:
        """(training, held-out) parses: the former mended, corrected, and without the captions left out."""
        training, held_out = split_silver(self.silver)
        unseen = {caption_key(graph.caption) for graph in read_gold(self.left_out)} if self.left_out else set()
        mended = [mend(parse) for parse in training if caption_key(parse.text()) not in unseen]
        corrected = GraphRepairs(read_gold(self.gold) if self.gold else []).repair_all(mended)
        return list(corrected), held_out

    def digests(self) -> dict[str, str]:
        """sha256 of each file, by what it is."""
        files = {"silver": self.silver, "gold": self.gold, "left_out": self.left_out}
        return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if file}


#: Gives a parse's caption another spelling.
Respell = Callable[[SilverParse, random.Random], SilverParse]


def batches(
    parses: Sequence[SilverParse], nlp: Language, rng: random.Random, words: int, respell: Respell
) -> Iterator[list[Example]]:
    """One epoch in random order and spelling, about `words` words a batch."""
    order = list(parses)
    rng.shuffle(order)
    batch: list[Example] = []
    size = 0
    for parse in order:
        batch.append(to_example(respell(parse, rng), nlp.vocab))
        size += len(parse.words)
        if size >= words:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def train(
    nlp: Language,
    parses: Sequence[SilverParse],
    *,
    epochs: int,
    seed: int,
    words: int,
    rate: float,
    respell: Respell = vary,
) -> None:
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
            for batch in batches(parses, nlp, rng, words, respell):
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


def describe(
    nlp: Language, given: argparse.Namespace, sources: Sources, scores: Mapping[str, Mapping[str, float]]
) -> None:
    """Fills the pipeline's meta.json: what it is, what it was made from, and what it scored."""
    settings = ("epochs", "seed", "width", "depth", "words", "rate")
    options = " ".join(f"--{name} {getattr(given, name)}" for name in settings)
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
            {"name": "FACTUAL's gold scene graphs of Visual Genome captions", "license": "MIT / CC BY 4.0"},
            {"name": "en_core_web_sm 2.2.5 (Explosion), the teacher", "license": "MIT"},
            {"name": "spacy-lookups-data (WordNet 3.0)", "license": "WordNet 3.0"},
        ],
        training={
            "command": "python -m mvptr_data.scene_graphs.train --silver SILVER --gold GOLD --leave-out DEV "
            f"--output DIR {options}",
            "sha256": sources.digests(),
            "rules_version": RULES_VERSION,
        },
        performance=scores,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    networks = Networks()
    options = argparse.ArgumentParser(
        prog="python -m mvptr_data.scene_graphs.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--silver", type=Path, required=True, help="gzipped JSON lines of parses")
    options.add_argument(
        "--gold", type=Path, help="FACTUAL's training graphs, which correct the parses of their captions"
    )
    options.add_argument("--leave-out", type=Path, help="FACTUAL graphs whose captions are never trained on")
    options.add_argument(
        "--output", type=Path, required=True, help="directory to write the pipeline to; replaced if there"
    )
    options.add_argument("--epochs", type=int, default=EPOCHS, help=f"passes over the captions (default {EPOCHS})")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--width", type=int, default=networks.width, help=f"of the shared convolutions (default {networks.width})"
    )
    options.add_argument("--depth", type=int, default=networks.depth, help=f"number of them (default {networks.depth})")
    options.add_argument("--words", type=int, default=1000, help="words in a batch (default 1000)")
    options.add_argument("--rate", type=float, default=0.002, help="highest learning rate (default 0.002)")
    options.add_argument(
        "--limit", type=int, default=None, help="train on the first so many captions only (for a trial)"
    )
    given = options.parse_args(arguments)
    sources = Sources(silver=given.silver, gold=given.gold, left_out=given.leave_out)
    training, held_out = sources.parses()
    training = training[: given.limit]
    print(f"{len(training)} training and {len(held_out)} held-out captions, spaCy {spacy.__version__}", flush=True)
    networks = replace(networks, width=given.width, depth=given.depth)
    nlp = build_pipeline(networks)
    multiply_with_numpy(nlp)
    train(nlp, training, epochs=given.epochs, seed=given.seed, words=given.words, rate=given.rate)
    small = compact(nlp, networks, frequent_words(training))
    scores = evaluate(small, held_out)
    print(json.dumps(scores, indent=1))
    describe(small, given, sources, scores)
    save(small, given.output)


if __name__ == "__main__":
    main()
