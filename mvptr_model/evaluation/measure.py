"""All that is measured of a model on one data set: retrieval, phrase grounding, masked words.

measured = measure(load_model("runs/paper/stage-2"), "flickr30k-test", gold)
measured.retrieved.reranked.rsum
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mvptr_model.evaluation.grounding import (
    GoldBoxes,
    GroundingAccuracy,
    PhraseState,
    ground_phrases,
    known_phrases,
)
from mvptr_model.evaluation.held_out import HeldOut
from mvptr_model.evaluation.language import RecoveredWords, recover_words
from mvptr_model.evaluation.retrieval import (
    RERANKED_IMAGES,
    RERANKED_TEXTS,
    Retrieval,
    Retrieved,
    chance,
    retrieve,
)
from mvptr_model.masking import MaskingSettings
from mvptr_model.saved_model import SavedModel, check_vocabulary
from mvptr_model.stream.reader import ShardReader


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSettings:
    """How it is measured; the defaults are the paper's. `captions`, `mask_seed`: see `HeldOut`; the words of every caption are
    masked. `texts_each`, `images_each`: see `retrieve`. `state`: see `ground_phrases`. `batch`: rows, or pairs, at a time."""

    captions: Literal["first", "every"] = "every"
    texts_each: int = RERANKED_TEXTS
    images_each: int = RERANKED_IMAGES
    state: PhraseState = "words"
    mask_seed: int = 0
    batch: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came out, and what guessing retrieves. `grounding` is None without gold boxes; of `texts` there are so many."""

    images: int
    texts: int
    retrieved: Retrieved
    guessed: Retrieval
    grounding: GroundingAccuracy | None
    words: RecoveredWords


def measure(
    saved: SavedModel, root: str, gold: GoldBoxes | None = None, settings: MeasureSettings | None = None
) -> Measured:
    """Measure a model on the published data set at `root`, on the device where the model is.

    The same model, data set and settings give the same figures. Raises `ConfigurationMismatchError` where the data set was
    published with another phrase vocabulary, `InputError` for settings that cannot be used, and what `ShardReader` raises.
    """
    settings = settings or MeasureSettings()
    check_vocabulary(saved.phrases, root)
    with ShardReader(root) as reader:
        data = HeldOut(reader, saved.words, saved.inputs, captions=settings.captions)
        masked = HeldOut(reader, saved.words, saved.inputs, masking=MaskingSettings(seed=settings.mask_seed))
        grounding = None
        if gold is not None:
            found = ground_phrases(saved.model, data, gold, state=settings.state, batch=settings.batch)
            grounding = GroundingAccuracy.of(found, known_phrases(data, gold))
        return Measured(
            images=data.images,
            texts=len(data.texts),
            retrieved=retrieve(
                saved.model,
                data,
                texts_each=settings.texts_each,
                images_each=settings.images_each,
                batch=settings.batch,
            ),
            guessed=chance(data.texts_of_images()),
            grounding=grounding,
            words=recover_words(saved.model, masked, batch=settings.batch),
        )
