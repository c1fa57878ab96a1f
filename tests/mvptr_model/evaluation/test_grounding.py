from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mvptr_data.abstract_scenes import read_truth
from mvptr_data.errors import InputError
from mvptr_data.phrases import PhraseWords
from mvptr_model.evaluation.grounding import GoldBoxes, GroundedPhrase, GroundingAccuracy, ground_phrases, known_phrases
from mvptr_model.evaluation.held_out import HeldOut, TextPlace
from mvptr_model.saved_model import SavedModel
from mvptr_model.stream.reader import Sample, ShardReader
from tests.conftest import World
from tests.mvptr_model.evaluation.small_models import small_model

Row = tuple[TextPlace, PhraseWords, int, list[bool]]


@pytest.fixture(scope="module")
def gold(world: World) -> GoldBoxes:
    """Of all phrases that speak of a thing."""
    return {
        (key, caption.text): {
            phrase.words: np.array([scene.things[thing].box for thing in phrase.things], dtype=np.float32)
            for phrase in caption.phrases
            if phrase.things
        }
        for key, scene in read_truth(world.truth).items()
        for caption in scene.captions
    }


def overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)


def literally(saved: SavedModel, data: HeldOut, samples: list[Sample], gold: GoldBoxes, state: str) -> list[Row]:
    """One text at a time, its word pieces by their offsets."""
    model, layer = saved.model.eval(), saved.model.configuration.wpg_layer - 1
    found = []
    for text, batch in zip(data.texts, data.text_batches(1), strict=True):
        sample = samples[text.image]
        caption = sample.captions[text.caption]
        with torch.no_grad():
            encoded = model.encode(batch)
            joint = model.bert.mul_encoder.outputs(encoded.text.then(encoded.regions), {layer})[layer].states
        pieces = saved.words.encode(caption.text)
        regions = joint[len(encoded.text.states) :]
        for number, known in enumerate(caption.phrases[: saved.inputs.max_phrases]):
            boxes = gold.get((sample.key, caption.text), {}).get(known.phrase)
            if boxes is None:
                continue
            if state == "phrase":
                query = joint[1 + len(pieces.ids) + number]
            else:
                starts, ends = pieces.offsets[0::2], pieces.offsets[1::2]
                touched = [
                    place
                    for place, (start, end) in enumerate(zip(starts, ends, strict=True), start=1)
                    if any(start < high and low < end for low, high in known.spans)
                ]
                query = joint[touched].mean(dim=0)
            cosines = [torch.dot(query, region) / query.norm() / region.norm() for region in regions]
            right = [max(overlap(box, wanted) for wanted in boxes.tolist()) > 0.5 for box in sample.boxes.tolist()]
            found.append((text, known.phrase, int(torch.stack(cosines).argmax()), right))
    return found


@pytest.mark.parametrize(("state", "batch"), [("words", 256), ("words", 7), ("phrase", 16)])
def test_phrases_are_found_as_one_at_a_time(published: Path, gold: GoldBoxes, state: str, batch: int) -> None:
    saved = small_model(published)
    with ShardReader(str(published)) as reader:
        data, samples = HeldOut(reader, saved.words, saved.inputs), list(reader)
        found = ground_phrases(saved.model, data, gold, state=state, batch=batch)  # type: ignore[arg-type]
        expected = literally(saved, data, samples, gold, state)
    assert len(expected) > 50 and len({region for _, _, region, _ in expected}) > 2
    assert [(one.text, one.phrase, one.region, one.right.tolist()) for one in found] == expected


def test_without_phrases_words_are_grounded_and_phrases_cannot_be(published: Path, gold: GoldBoxes) -> None:
    whole = small_model(published)
    saved = small_model(published, inputs=("w", "r", "t"), losses=("mcr_v", "vsc", "mlm", "itm"))
    with ShardReader(str(published)) as reader:
        data = HeldOut(reader, saved.words, saved.inputs)
        found = ground_phrases(saved.model, data, gold)
        of_whole = ground_phrases(whole.model, data, gold)
        with pytest.raises(InputError, match="'phrase'"):
            ground_phrases(saved.model, data, gold, state="phrase")
    # Which phrases are asked for is not the model's choice.
    assert [(one.text, one.phrase) for one in found] == [(one.text, one.phrase) for one in of_whole]


def test_phrases_that_cannot_be_asked_for_are_counted(published: Path, gold: GoldBoxes) -> None:
    saved = small_model(published)
    with ShardReader(str(published)) as reader:
        data = HeldOut(reader, saved.words, replace(saved.inputs, max_phrases=1))
        texts = [(sample.key, caption.text) for sample in reader for caption in sample.captions]
        accuracy = GroundingAccuracy.of(ground_phrases(saved.model, data, gold), known_phrases(data, gold))
    assert accuracy.phrases + accuracy.left_out == sum(len(gold[text]) for text in texts)
    assert 0 < accuracy.phrases <= len(texts) < accuracy.left_out


def test_merged_attention_grounds_in_its_own_layers(published: Path, gold: GoldBoxes) -> None:
    saved = small_model(published, merged_attention=True, losses=("mcr_v", "mcr_s", "wpg", "mlm", "itm"))
    with ShardReader(str(published)) as reader:
        data = HeldOut(reader, saved.words, saved.inputs)
        once, by_parts = (ground_phrases(saved.model, data, gold, batch=size) for size in (64, 5))
    assert [one.region for one in once] == [one.region for one in by_parts]
    assert all(0 <= one.region < len(one.boxes) for one in once)


def test_accuracy_and_what_it_is_held_against() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 30, 30], [5, 5, 15, 25]], dtype=np.float32)

    def found(region: int, *right: bool) -> GroundedPhrase:
        return GroundedPhrase(TextPlace(0, 0), ("ball", "red"), region, np.array(right), boxes)

    accuracy = GroundingAccuracy.of(
        [
            found(0, True, False, False),
            found(1, True, True, False),
            found(2, False, True, False),
            found(0, False, False, False),
        ],
        known=6,
    )
    assert accuracy == GroundingAccuracy(
        phrases=4,
        left_out=2,
        accuracy=0.5,
        upper_bound=0.75,
        largest_box=0.5,
        random_box=pytest.approx((1 + 2 + 1) / 3 / 4),
    )
    assert GroundingAccuracy.of([], known=0) == GroundingAccuracy(
        phrases=0, left_out=0, accuracy=0.0, upper_bound=0.0, largest_box=0.0, random_box=0.0
    )


def test_half_an_overlap_is_not_enough(published: Path) -> None:
    saved = small_model(published)
    with ShardReader(str(published)) as reader:
        data = HeldOut(reader, saved.words, saved.inputs)
        sample = reader[0]
        caption = next(caption for caption in sample.captions if caption.phrases)
        x1, y1, x2, y2 = sample.boxes[0].tolist()
        shares = {}
        for share in (0.5, 0.501):  # of the box itself: the overlap is that share
            wanted = np.array([[x1, y1, x1 + (x2 - x1) * share, y2]], dtype=np.float64)
            known = {caption.phrases[0].phrase: wanted}
            (one,) = ground_phrases(saved.model, data, {(sample.key, caption.text): known})  # type: ignore[dict-item]
            shares[share] = bool(one.right[0])
    assert shares == {0.5: False, 0.501: True}
