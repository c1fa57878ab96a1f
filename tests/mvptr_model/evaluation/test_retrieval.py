from __future__ import annotations

import math
from itertools import permutations
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.errors import InputError
from mvptr_model.evaluation.encoding import encode_pairs
from mvptr_model.evaluation.held_out import HeldOut
from mvptr_model.evaluation.retrieval import Recalls, Retrieval, best, both_ways, chance, ranks, retrieve
from mvptr_model.saved_model import SavedModel
from mvptr_model.stream.reader import ShardReader
from tests.mvptr_model.evaluation.small_models import small_model


@pytest.fixture(scope="module")
def saved(published: Path) -> SavedModel:
    return small_model(published)


@pytest.fixture(scope="module")
def data(published: Path, saved: SavedModel) -> HeldOut:
    return HeldOut(ShardReader(str(published)), saved.words, saved.inputs)


def literal_rank(scores: list[float], right: list[bool]) -> int:
    """The place of the first right candidate, where of equal ones the wrong stand before."""
    order = sorted(range(len(scores)), key=lambda candidate: (-scores[candidate], right[candidate]))
    return next((place for place, candidate in enumerate(order) if right[candidate]), len(scores) - sum(right))


@given(st.data())
def test_ranks_are_the_place_in_a_sorted_list(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 8))
    score = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0])
    rows = data.draw(st.lists(st.tuples(*[score] * width), min_size=1, max_size=5))
    masks = [data.draw(st.tuples(*[st.booleans()] * width).filter(any)) for _ in rows]
    found = ranks(torch.tensor(rows), torch.tensor(masks)).tolist()
    expected = []
    for row, mask in zip(rows, masks, strict=True):
        considered = any(right and score > -math.inf for score, right in zip(row, mask, strict=True))
        expected.append(literal_rank(list(row), list(mask)) if considered else mask.count(False))
    assert found == expected


def test_equal_scores_find_nothing_and_no_number_is_refused() -> None:
    own = torch.eye(12, dtype=torch.bool)
    nothing = both_ways(torch.zeros(12, 12), torch.zeros(12, 12), own)
    assert nothing.rsum == 0.0
    everything = both_ways(own.float(), own.float(), own)
    assert everything.rsum == 600.0
    with pytest.raises(InputError, match="no numbers"):
        ranks(torch.tensor([[0.0, math.nan]]), torch.tensor([[True, False]]))


def test_recalls_count_every_cutoff() -> None:
    assert Recalls.of(torch.tensor([0, 1, 4, 5, 9, 10])) == Recalls(r1=1 / 6, r5=3 / 6, r10=5 / 6)
    assert Recalls(r1=0.1, r5=0.2, r10=0.4).sum == pytest.approx(70.0)


@given(st.integers(1, 12), st.integers(1, 14), st.integers(0, 3))
def test_the_best_are_the_first_of_a_stable_order(most: int, width: int, seed: int) -> None:
    scores = torch.randint(0, 4, (3, width), generator=torch.Generator().manual_seed(seed)).double()
    for row, chosen in zip(scores.tolist(), best(scores, most), strict=True):
        expected = sorted(range(width), key=lambda candidate: (-row[candidate], candidate))[:most]
        assert chosen.nonzero()[:, 0].tolist() == sorted(expected)


def test_chance_is_the_mean_over_all_orders() -> None:
    found = chance([2, 1, 3])
    orders = list(permutations([0, 0, 1, 2, 2, 2]))
    for share, k in ((found.image_to_text.r1, 1), (found.image_to_text.r5, 5), (found.image_to_text.r10, 10)):
        hits = [image in order[:k] for order in orders for image in range(3)]
        assert share == pytest.approx(sum(hits) / len(hits))
    assert found.text_to_image.r1 == pytest.approx(1 / 3)
    assert found.text_to_image.r5 == found.text_to_image.r10 == 1.0


def literally(
    saved: SavedModel, data: HeldOut, texts_each: int, images_each: int
) -> tuple[Retrieval | None, Retrieval]:
    """One pair at a time, and lists."""
    model = saved.model.eval()
    merged = model.configuration.merged_attention
    with torch.no_grad():
        encoded = [model.encode(batch) for batch in data.text_batches(1)]
        texts = [part.text for part in encoded]
        of = [place.image for place in data.texts]
        first = [of.index(image) for image in range(data.images)]
        images = [encoded[place] for place in first]
        coarse = [
            [
                torch.cosine_similarity(
                    model.bert.vis_proj(image.tags.states[:1]), model.bert.txt_proj(text.states[:1])
                ).item()
                for text in texts
            ]
            for image in images
        ]
        odds = []
        for image in images:
            seen = image.tags.then(image.regions) if merged else image.regions
            odds.append([])
            for text in texts:
                joint = model.bert.mul_encoder(text.then(seen))
                match = model.cls.seq_relationship(model.bert.pooler(joint.states[:1])).softmax(dim=1)
                odds[-1].append(match[0, 1].item())
    every = range(len(texts))

    def recalls(scores: list[list[float]], judge: list[list[float]], keep: int, right: list[list[bool]]) -> Recalls:
        found = []
        for coarse_row, fine_row, right_row in zip(scores, judge, right, strict=True):
            kept = sorted(range(len(coarse_row)), key=lambda at: -coarse_row[at])[:keep]
            order = sorted(kept, key=lambda at: -fine_row[at])
            place = next((number for number, at in enumerate(order) if right_row[at]), 10**6)
            found.append(place)
        return Recalls.of(torch.tensor(found))

    right = [[of[text] == image for text in every] for image in range(data.images)]
    flipped = [[row[text] for row in right] for text in every]
    both = []
    for scores, judge, keep in (
        (coarse, coarse, (len(texts), data.images)),
        (odds if merged else coarse, odds, (len(texts), data.images) if merged else (texts_each, images_each)),
    ):
        both.append(
            Retrieval(
                image_to_text=recalls(scores, judge, keep[0], right),
                text_to_image=recalls(
                    [[row[text] for row in scores] for text in every],
                    [[row[text] for row in judge] for text in every],
                    keep[1],
                    flipped,
                ),
            )
        )
    return None if merged else both[0], both[1]


@pytest.mark.parametrize(("texts_each", "images_each", "batch"), [(128, 64, 256), (20, 6, 7)])
def test_retrieval_is_that_of_one_pair_at_a_time(
    saved: SavedModel, data: HeldOut, texts_each: int, images_each: int, batch: int
) -> None:
    found = retrieve(saved.model, data, texts_each=texts_each, images_each=images_each, batch=batch)
    assert (found.coarse, found.reranked) == literally(saved, data, texts_each, images_each)


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": ("w", "r", "t"), "losses": ("mcr_v", "vsc", "mlm", "itm")},
        {"inputs": ("w", "c", "r"), "losses": ("mcr_s", "vsc", "wpg", "mlm", "itm")},
        {"merged_attention": True, "losses": ("mcr_v", "mcr_s", "wpg", "mlm", "itm")},
    ],
    ids=["without phrases", "without tags", "merged"],
)
def test_ablated_models_are_retrieved_with_as_they_learn(published: Path, changes: dict[str, object]) -> None:
    saved = small_model(published, **changes)
    data = HeldOut(ShardReader(str(published)), saved.words, saved.inputs, captions="first")
    found = retrieve(saved.model, data, texts_each=5, images_each=4, batch=9)
    if "c" in saved.model.configuration.inputs and "t" in saved.model.configuration.inputs:
        assert (found.coarse, found.reranked) == literally(saved, data, 5, 4)
    assert (found.coarse is None) == saved.model.configuration.merged_attention
    assert 0 <= found.reranked.rsum <= 600


def test_a_model_that_was_learning_goes_on_learning(saved: SavedModel, data: HeldOut) -> None:
    saved.model.train()
    first, second = (retrieve(saved.model, data) for _ in range(2))
    assert saved.model.training and first == second
    assert all(not module.training for module in saved.model.eval().modules())


@pytest.mark.parametrize(
    ("name", "message"),
    [("texts_each", "texts_each is 0"), ("images_each", "images_each is 0"), ("batch", "batch of 0")],
)
def test_numbers_below_one_are_refused(saved: SavedModel, data: HeldOut, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        retrieve(saved.model, data, **{name: 0})


def test_pairs_are_encoded_as_the_model_does(saved: SavedModel, data: HeldOut) -> None:
    """A layer's output for a batch is that for each of its pairs alone."""
    model = saved.model.eval()
    with torch.no_grad():
        alone = [encode_pairs(model, batch, 1) for batch in data.text_batches(1)]
        together = [encode_pairs(model, batch, 1) for batch in data.text_batches(16)]
    for side in range(2):
        one = torch.cat([pair[side].states for pair in alone])
        many = torch.cat([pair[side].states for pair in together])
        torch.testing.assert_close(one, many, rtol=0, atol=1e-10)
