"""Both stages: against each pair encoded by itself, without what a batch may lack, from the stream."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.model_batch import made_batch
from benchmarks.plain_mvptr import PlainMvptr
from mvptr_data.errors import InputError
from mvptr_model.batch import Batch
from mvptr_model.configuration import FIRST_STAGE_LOSSES, LOSSES
from mvptr_model.encoders import Encoder
from mvptr_model.inputs import Collator
from mvptr_model.losses.itm import mismatched_pairs, other_images
from mvptr_model.losses.ranks import Peers
from mvptr_model.losses.vsc import Rivals, similarities
from mvptr_model.masking import IGNORED, MaskingSettings
from mvptr_model.model import Mvptr
from mvptr_model.stream.batches import StreamSpec
from mvptr_model.stream.loader import StreamLoader
from mvptr_model.stream.reader import ShardReader
from mvptr_model.stream.settings import OrderSettings
from mvptr_model.word_pieces import WordPieces
from tests.mvptr_model.random_batches import VARIETY, WORDS, random_batch, small_configuration, small_model


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small are not worth a second thread, which on a busy machine is waited for."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Alone:
    """A pair's states, encoded without a batch and without padding."""

    def __init__(self, model: Mvptr, batch: Batch, slot: int) -> None:
        self.model, bert = model, model.bert
        words, tags, regions = (int(n[slot]) for n in (batch.text_lengths, batch.tag_lengths, batch.region_counts))
        self.word_labels, self.phrase_labels = batch.word_labels[slot, :words], batch.phrase_labels[slot, :words]
        self.tag_labels = batch.tag_labels[slot, :tags]
        count = int(batch.phrase_counts[slot])
        self.phrases = slice(words - 1 - count, words - 1)
        self.text = bert.text(batch.text_ids[slot, :words], torch.tensor([words]))
        embedded = bert.tags(batch.tag_ids[slot, :tags], torch.tensor([tags]))
        features, geometry = (values[slot, :regions] for values in (batch.features, batch.geometry))
        self.tags, self.regions = bert.image(embedded, bert.regions(features, geometry, torch.tensor([regions])))

    def with_image_of(self, other: Alone) -> list[Tensor]:
        """Each layer's output for this text and another pair's image: [T + R, D]."""
        layers = range(self.model.configuration.joint_layers)
        found = self.model.bert.mul_encoder.outputs(self.text.then(other.regions), layers)
        return [found[layer].states for layer in layers]

    def grounding(self, joint: Tensor) -> float | None:
        """Eq. 6 of a text and an image; None where it is not defined."""
        phrases, regions = joint[self.phrases], joint[len(self.word_labels) :]
        if not len(phrases) or not len(regions):
            return None
        return torch.cosine_similarity(phrases[:, None], regions[None], dim=-1).max(dim=1).values.mean().item()


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def recovery(log_p: Tensor, labels: Tensor) -> list[float]:
    """Eq. 1-2 of one sample's masked places, [k, C] and [k]; nothing where there are none."""
    if not len(labels):
        return []
    places = range(len(labels))
    best = min(permutations(places), key=lambda alpha: sum(1 - log_p[i, labels[alpha[i]]].exp().item() for i in places))
    return [-_mean([log_p[i, labels[best[i]]].item() for i in places])]


@pytest.mark.parametrize("wpg_negatives", ["itm", "own"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equal_to_each_pair_encoded_by_itself(seed: int, wpg_negatives: str) -> None:
    """All six losses, from single unpadded pairs and equations written out."""
    configuration = small_configuration(wpg_negatives=wpg_negatives)
    model = small_model(configuration)
    batch = random_batch(seed, 7, images=5, tags=4, empty=1)
    filled = range(6)
    with torch.no_grad():
        outcome = model(batch, stage=2, seed=3, step=9)
        alone = [Alone(model, batch, slot) for slot in filled]
        table = model.bert.embeddings.word_embeddings.weight
        words, phrases = table[:WORDS], table[WORDS:]

        # Stage 1.
        expected: dict[str, float] = {}
        tags, said = [], []
        for one in alone:
            chosen = one.tag_labels != IGNORED
            tags += recovery(model.half_mlm(one.tags.states[chosen], words).log_softmax(1), one.tag_labels[chosen])
            chosen = one.phrase_labels != IGNORED
            logits = model.phrase_mcr(one.text.states[chosen], phrases)
            said += recovery(logits.log_softmax(1), one.phrase_labels[chosen])
        expected["mcr_v"], expected["mcr_s"] = _mean(tags), _mean(said)
        images = model.bert.vis_proj(torch.cat([one.tags.first for one in alone]))
        texts = model.bert.txt_proj(torch.cat([one.text.first for one in alone]))
        scale, peers = model.logit_scale.exp(), Peers.alone()
        rivals = Rivals.among(peers, batch.image_ids[:6], batch.weights[:6])
        similar = similarities(images, texts, scale, peers)
        compared = scale * torch.cosine_similarity(images[:, None], texts[None], dim=-1)
        compared[(batch.image_ids[:6, None] == batch.image_ids[:6]) & ~torch.eye(6, dtype=torch.bool)] = -torch.inf
        own = (compared.log_softmax(1).diagonal() + compared.log_softmax(0).diagonal()) / 2
        expected["vsc"] = -own.mean().item()

        # Stage 2.
        mismatched = mismatched_pairs(similar, rivals, seed=3, step=9, hardest=False).pairs()
        judged, recovered, hinges = [], [], {}
        for slot, one in enumerate(alone):
            last = one.with_image_of(one)[-1]
            judged.append(_judgement(model, last, match=1))
            chosen = one.word_labels != IGNORED
            log_p = model.cls.predictions(last[: len(chosen)][chosen], words).log_softmax(1)
            recovered += [-log_p[i, label].item() for i, label in enumerate(one.word_labels[chosen])]
            if mismatched.weights[slot]:
                text, image = alone[mismatched.texts[slot]], alone[mismatched.images[slot]]
                judged.append(_judgement(model, text.with_image_of(image)[-1], match=0))
        expected["mlm"], expected["itm"] = _mean(recovered), _mean(judged)
        others = mismatched if wpg_negatives == "itm" else other_images(similar, rivals, seed=3, step=9).pairs()
        for image, sentence, weight in zip(*(values.tolist() for values in others), strict=True):
            text = alone[sentence]
            right = text.grounding(text.with_image_of(text)[configuration.grounding_layer])
            wrong = text.grounding(text.with_image_of(alone[image])[configuration.grounding_layer])
            if weight and right is not None and wrong is not None:
                hinges.setdefault(sentence, []).append(max(0.0, 0.2 + wrong - right))
        expected["wpg"] = _mean([_mean(values) for values in hinges.values()])

    assert outcome.losses.keys() == expected.keys() == set(LOSSES)
    for name, value in expected.items():
        assert math.isclose(outcome.losses[name].item(), value, rel_tol=1e-6, abs_tol=1e-9), name
        assert value > 0, name
    assert math.isclose(outcome.total.item(), sum(expected.values()), rel_tol=1e-6)


def _judgement(model: Mvptr, joint: Tensor, match: int) -> float:
    pooled = torch.tanh(model.bert.pooler.dense(joint[0]))
    return -model.cls.seq_relationship(pooled).log_softmax(0)[match].item()


#: What is missing, and the losses that have nothing to learn from without it.
LACKING: dict[str, tuple[dict[str, Any], set[str]]] = {
    "a phrase": ({"pairs": 4, "phrases": 0}, {"mcr_s", "wpg"}),
    "a tag": ({"pairs": 4, "tags": 0}, {"mcr_v"}),
    "any region": ({"pairs": 4, "regions": 0}, {"wpg"}),
    "three regions": ({"pairs": 4, "regions": 2}, set()),
    "a second pair": ({"pairs": 1}, {"vsc", "wpg"}),
    "a second image": ({"pairs": 4, "images": 1}, {"vsc", "wpg"}),
    "a second filled slot": ({"pairs": 4, "empty": 3}, {"vsc", "wpg"}),
    "any filled slot": ({"pairs": 2, "empty": 2}, set(LOSSES)),
}


@pytest.mark.parametrize("preset", ["paper", "official"])
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("lacking", LACKING)
def test_a_batch_that_lacks_something(lacking: str, stage: int, preset: str) -> None:
    """Finite losses, and a gradient for every parameter of the stage, so that ranks stay together."""
    model = small_model(small_configuration(preset))
    given, idle = LACKING[lacking]
    outcome = model(random_batch(3, **given), stage=stage)
    outcome.total.backward()
    for name, value in outcome.losses.items():
        assert value.isfinite(), name
        assert value.requires_grad, name
        assert name not in idle or value == 0, name
    unused = {1: ("bert.mul_encoder", "bert.pooler", "cls"), 2: ()}[stage]
    unused += () if "mcr_s" in outcome.losses else ("phrase_mcr",)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith(unused), name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_merged_attention_equals_each_pair_encoded_by_itself() -> None:
    """One stack over text, tags and regions, whose output serves masked words and tags."""
    model = small_model(small_configuration(merged_attention=True, losses=("mcr_v", "mlm")))
    batch = random_batch(1, 5, tags=4)
    with torch.no_grad():
        outcome = model(batch, stage=2)
        rows = model.bert.embeddings.word_embeddings.weight[:WORDS]
        tags, words = [], []
        for one in (Alone(model, batch, slot) for slot in range(5)):
            joint = model.bert.mul_encoder(one.text.then(one.tags).then(one.regions)).states
            chosen, said = one.tag_labels != IGNORED, one.word_labels != IGNORED
            seen = joint[len(said) : len(said) + len(chosen)]
            tags += recovery(model.half_mlm(seen[chosen], rows).log_softmax(1), one.tag_labels[chosen])
            log_p = model.cls.predictions(joint[: len(said)][said], rows).log_softmax(1)
            words += [-log_p[i, label].item() for i, label in enumerate(one.word_labels[said])]
    assert math.isclose(outcome.losses["mcr_v"].item(), _mean(tags), rel_tol=1e-6)
    assert math.isclose(outcome.losses["mlm"].item(), _mean(words), rel_tol=1e-6)


def test_seed_and_step_decide_the_negatives() -> None:
    model, batch = small_model(), random_batch(2, 12, images=None)
    losses = [model(batch, stage=2, seed=a, step=b).losses["itm"].item() for a, b in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_it_learns() -> None:
    """A batch is learned by heart: every loss falls to less than half."""
    model, batch = small_model(), random_batch(0, 6)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    first = model(batch, stage=2).losses
    for step in range(40):
        optimizer.zero_grad()
        model(batch, stage=2, step=step).total.backward()
        optimizer.step()
    last = model(batch, stage=2).losses
    for name, value in first.items():
        assert last[name] < value / 2, name


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("changes", VARIETY.values(), ids=VARIETY)
def test_packed_equals_padded(changes: dict[str, Any], stage: int) -> None:
    """Losses, accuracies and gradients, of a padded batch with whatever in its padding, to 1e-10."""
    model = small_model(small_configuration(**changes))
    batch = random_batch(1, 6, images=5, empty=1)
    filled = replace(
        batch,
        text_ids=batch.text_ids.where(batch.text_mask, 7),
        tag_ids=batch.tag_ids.where(batch.tag_mask, 7),
        features=batch.features.where(batch.region_mask[..., None], torch.nan),
    )
    packed = batch.without_padding()
    assert packed.packed and packed.without_padding() is packed
    found = []
    for form in (filled, packed):
        model.zero_grad()
        outcome = model(form, stage=stage, seed=2, step=1)
        outcome.total.backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        found.append(
            {**outcome.losses, **{f"{name} accuracy": v for name, v in outcome.accuracies.items()}, **gradients}
        )
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stage", [1, 2])
def test_equal_to_a_plain_padded_model(stage: int) -> None:
    """Losses and gradients of the benchmark's: padding, every place, every head on every place, to 1e-10."""
    rows = {"word_rows": 1100, "phrase_rows": 30, "positions": 40, "region_size": 2054}
    model = small_model(small_configuration(**rows, layers=3, wpg_layer=2))
    batch = made_batch(6, model.configuration)
    found = []
    for losses in (PlainMvptr(model).losses(batch, stage=stage, seed=4), model(batch, stage=stage, seed=4).losses):
        model.zero_grad()
        torch.stack([losses[name] for name in sorted(losses)]).sum().backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        found.append({**losses, **gradients})
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("changes", VARIETY.values(), ids=VARIETY)
def test_places_left_out_change_nothing(changes: dict[str, Any], stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same losses and gradients when every layer computes every place."""
    model, batch = small_model(small_configuration(**changes)), random_batch(1, 6, images=5)
    found, outputs = [], Encoder.outputs
    for everywhere in (False, True):
        if everywhere:
            monkeypatch.setattr(
                Encoder, "outputs", lambda self, sequences, wanted, only=None: outputs(self, sequences, wanted)
            )
        model.zero_grad()
        outcome = model(batch, stage=stage, seed=2, step=1)
        outcome.total.backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        found.append({**outcome.losses, **gradients})
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("how", ["bfloat16", "float16", "autocast"])
@pytest.mark.parametrize("stage", [1, 2])
def test_half_precision(how: str, stage: int) -> None:
    """Losses are computed in float32, and near those of a wider model; gradients are finite."""
    batch = random_batch(0, 6)
    wide = small_model()(batch, stage=stage).losses
    model = small_model().float() if how == "autocast" else small_model().to(getattr(torch, how))
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        outcome = model(batch, stage=stage)
    outcome.total.backward()
    for name, value in outcome.losses.items():
        assert value.dtype == torch.float32, name
        torch.testing.assert_close(value.double(), wide[name], rtol=0.1, atol=0.05)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_a_batch_of_the_stream(published: Path) -> None:
    """From shards on disk to the losses of both stages, an empty slot included."""
    alphabet = string.ascii_lowercase
    words = WordPieces(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *alphabet, *(f"##{letter}" for letter in alphabet)]
    )
    with ShardReader(str(published)) as reader:
        phrases = reader.vocabulary()
    spec = StreamSpec(
        roots=(str(published),),
        order=OrderSettings(global_batch=4, canonical_streams=1, tail="pad"),
        collate=Collator(words, phrases, masking=MaskingSettings(seed=7)),
    )
    configuration = small_configuration(word_rows=words.size, phrase_rows=len(phrases), positions=64, region_size=2054)
    model = small_model(configuration).float()
    empty = 0
    for step, batch in enumerate(itertools.islice(StreamLoader(spec), 3)):  # the first pass over 11 pictures
        empty += int((batch.weights == 0).sum())
        for stage, losses in ((1, FIRST_STAGE_LOSSES), (2, LOSSES)):
            outcome = model(batch, stage=stage, step=step)
            outcome.total.backward()
            assert outcome.losses.keys() == set(losses)
            assert all(value.isfinite() for value in outcome.losses.values())
            assert all(parameter.grad.isfinite().all() for parameter in model.bert.txt_encoder.parameters())
    assert empty == 1


def test_what_it_does_not_take() -> None:
    model, batch = small_model(), random_batch(0, 2)
    with pytest.raises(InputError, match="stage is 0"):
        model(batch, stage=0)
    longest = int(batch.text_lengths.max())
    short = small_model(small_configuration(positions=longest - 1))
    with pytest.raises(InputError, match=f"{longest} places"):
        short(batch, stage=1)


def test_parameters_have_the_authors_names() -> None:
    """Their checkpoint's keys (318, shapes aside), but for the two projections, which they use transposed."""
    layers = [
        f"bert.{stack}_encoder.layer.{layer}.{block}.{kind}"
        for stack in ("txt", "vis", "mul")
        for layer in range(6)
        for block in (
            *(f"attention.self.{name}" for name in ("query", "key", "value")),
            *("attention.output.dense", "attention.output.LayerNorm", "intermediate.dense"),
            *("output.dense", "output.LayerNorm"),
        )
        for kind in ("weight", "bias")
    ]
    heads = [
        f"{head}.{name}"
        for head in ("cls.predictions", "half_mlm")
        for name in (
            *(f"transform.{block}.{kind}" for block in ("dense", "LayerNorm") for kind in ("weight", "bias")),
            "decoder.weight",
            "bias",
        )
    ]
    others = [
        *(f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")),
        *(
            f"bert.{block}.{kind}"
            for block in ("embeddings.LayerNorm", "img_embedding", "pooler.dense")
            for kind in ("weight", "bias")
        ),
        *("bert.txt_proj.weight", "bert.vis_proj.weight", "logit_scale"),
        *("cls.seq_relationship.weight", "cls.seq_relationship.bias"),
    ]
    configuration = small_configuration("official", layers=6, wpg_layer=6)
    names = {name for name in small_model(configuration).state_dict() if not name.startswith("phrase_mcr.")}
    assert names == {*layers, *heads, *others}
