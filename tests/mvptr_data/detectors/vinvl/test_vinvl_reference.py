"""The full network with the reference weights against what the reference computed, stage by stage.

Equality with recorded numbers can be asked of one machine's kernels only. C4 lies 142 convolutions deep; computed in float64
it differs from the recorded fp32 map by up to 1.5e-4, and the reference's literal translation, run on another processor, by as
much. So two things are asked: bit-for-bit equality with the literal translation on this machine, whatever it is; and equality
with the recorded numbers, to `EXACT` where this machine's kernels are the recording's, to `ROUNDING` (that spread, carried to
the stages behind) where they are not. README.md has the measured table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.vinvl_reference import ReferenceDetector
from mvptr_data.detectors.boxes import order_corners
from mvptr_data.detectors.devices import choose_device
from mvptr_data.detectors.label_map import load_label_map
from mvptr_data.detectors.vinvl.architecture import X152_C4
from mvptr_data.detectors.vinvl.detector import VinvlDetector, inference_model
from mvptr_data.detectors.vinvl.model import VinvlModel
from mvptr_data.detectors.vinvl.options import VinvlOptions
from mvptr_data.detectors.vinvl.pixels import prepare, to_input
from mvptr_data.detectors.vinvl.postprocess import RULES
from mvptr_data.detectors.vinvl.rpn import propose
from mvptr_data.detectors.vinvl.weights import LoadedModel, load_weights
from tests.mvptr_data.detectors.vinvl.alike import Expected, compare_regions
from tests.mvptr_data.detectors.vinvl.reference_weights import reference_state

#: The photograph that has its stages recorded, and the other one.
STAGED, OTHER = "000000000285", "000000000785"
#: How far two orders of summation lie apart: C4 and RPN, features and scores.
MAP_ROUNDING, ROUNDING = 5e-4, 1.5e-3
#: The difference asked for where this machine's convolutions sum in the order of the recording's.
EXACT = 1e-4

Find = Callable[[str], Path]


@pytest.fixture(scope="module")
def weights(reference: Find, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference weights in a file, as a user has them."""
    path = tmp_path_factory.mktemp("vinvl") / "reference.pth"
    torch.save({"model": reference_state(reference("data/vinvl/weights_small.npz"))}, path)
    return path


@pytest.fixture(scope="module")
def loaded(weights: Path) -> LoadedModel:
    return load_weights(weights, X152_C4)


@pytest.fixture(scope="module")
def model(loaded: LoadedModel) -> VinvlModel:
    """The network every test here shares. It remembers what it made of a photograph: each takes 20 CPU-seconds."""
    model = inference_model(loaded.model, "fp32", torch.device("cpu"), exact=True)
    model.backbone.forward = remembering(model.backbone.forward)  # type: ignore[method-assign]
    model.roi.pool = remembering(model.roi.pool)  # type: ignore[method-assign]
    return model


def remembering(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`compute`, which is called once for the same tensors."""
    known: dict[bytes, Tensor] = {}

    def recall(*tensors: Tensor) -> Tensor:
        key = b"".join(sha256(tensor.contiguous().numpy().tobytes()).digest() for tensor in tensors)
        if key not in known:
            known[key] = compute(*tensors)
        return known[key]

    return recall


@pytest.fixture(scope="module")
def outputs(reference: Find) -> dict[str, np.ndarray]:
    return dict(np.load(reference("data/vinvl/reference_outputs.npz")))


@pytest.fixture(scope="module")
def stages(reference: Find) -> dict[str, Tensor]:
    recorded = np.load(reference("data/vinvl/reference_stages.npz"))
    return {name: torch.from_numpy(recorded[name]) for name in recorded.files if name != "image"}


def photograph(reference: Find, name: str) -> Image.Image:
    return Image.open(reference(f"data/photos/{name}.jpg")).convert("RGB")


@dataclass(frozen=True, kw_only=True)
class Computed:
    """Our own stages of a photograph."""

    size: tuple[int, int]
    feature_map: Tensor
    logits: Tensor
    steps: Tensor
    proposals: Tensor
    vectors: Tensor


def compute(model: VinvlModel, image: Image.Image) -> Computed:
    pixels = to_input([prepare(image).pixels], torch.device("cpu"))
    height, width = pixels.shape[2:]
    with torch.inference_mode():
        feature_map = model.feature_maps(pixels)
        logits, steps = model.rpn(feature_map)
        anchors = model.rpn.anchors(*feature_map.shape[2:])
        proposals = propose(logits[0], steps[0], anchors, width=width, height=height, limit=300)
        vectors = model.roi.pool(feature_map, proposals)
    return Computed(
        size=(width, height),
        feature_map=feature_map,
        logits=logits,
        steps=steps,
        proposals=proposals,
        vectors=vectors,
    )


@pytest.fixture(scope="module")
def staged(model: VinvlModel, reference: Find) -> Computed:
    return compute(model, photograph(reference, STAGED))


@pytest.fixture(scope="module")
def same_kernels(staged: Computed, stages: dict[str, Tensor]) -> bool:
    """Whether this machine's convolutions are those that the reference was recorded with."""
    same = largest(staged.feature_map[:, ::8], stages["c4_every_8th_channel"]) == 0
    print(f"this machine's kernels are {'' if same else 'not '}the recording's")
    return same


def largest(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max())


def in_order(maps: Tensor, each: int) -> Tensor:
    """[1, 15 * each, H, W] as the reference records it -> [N, each], anchors in (H, W, A) order."""
    _, channels, height, width = maps.shape
    return maps.view(channels // each, each, height, width).permute(2, 3, 0, 1).reshape(-1, each)


def test_network_sizes(reference: Find, outputs: dict[str, np.ndarray]) -> None:
    for name in (STAGED, OTHER):
        prepared = prepare(photograph(reference, name))
        assert prepared.size == tuple(outputs[f"{name}/common/image_size_wh"])
        assert prepared.pixels.shape[1::-1] == tuple(outputs[f"{name}/common/network_size_wh"])


# What each stage makes of the reference's own input to it. These are tight: nothing upstream is in them.


def test_proposals_from_the_references_logits(
    model: VinvlModel, stages: dict[str, Tensor], outputs: dict[str, np.ndarray]
) -> None:
    logits, steps = in_order(stages["rpn_objectness_logits"], 1)[:, 0], in_order(stages["rpn_deltas"], 4)
    height, width = stages["rpn_deltas"].shape[2:]
    size = outputs[f"{STAGED}/common/network_size_wh"].tolist()
    found = propose(logits, steps, model.rpn.anchors(height, width), width=size[0], height=size[1], limit=300)
    assert largest(found, torch.from_numpy(outputs[f"{STAGED}/common/proposals"])) < 1e-4  # all 300, in order


def test_class_logits_from_the_references_vectors(model: VinvlModel, stages: dict[str, Tensor]) -> None:
    found = model.roi.classify(stages["res5_pooled_first_64"])
    assert largest(found, stages["class_logits_first_64"]) < 1e-4


def test_attribute_logits_from_the_references_detections(
    model: VinvlModel, stages: dict[str, Tensor], outputs: dict[str, np.ndarray]
) -> None:
    vectors, labels = (torch.from_numpy(outputs[f"{STAGED}/per_class/{part}"][:32]) for part in ("features", "labels"))
    assert largest(model.attribute(vectors, labels), stages["attribute_logits_first_32"]) < 1e-4


# What each stage makes of our own input to it.


def test_c4(staged: Computed, stages: dict[str, Tensor]) -> None:
    assert largest(staged.feature_map[:, ::8], stages["c4_every_8th_channel"]) < MAP_ROUNDING


def test_rpn(staged: Computed, stages: dict[str, Tensor], same_kernels: bool) -> None:
    limit = EXACT if same_kernels else MAP_ROUNDING
    assert largest(staged.logits[0][:, None], in_order(stages["rpn_objectness_logits"], 1)) < limit
    assert largest(staged.steps[0], in_order(stages["rpn_deltas"], 4)) < limit


def test_proposals(staged: Computed, outputs: dict[str, np.ndarray], same_kernels: bool) -> None:
    """All 300, each where the reference has it, unless the objectness of its neighbors is nearer than roundings are."""
    expected = torch.from_numpy(outputs[f"{STAGED}/common/proposals"])
    objectness = torch.from_numpy(outputs[f"{STAGED}/common/objectness"])
    if same_kernels:
        assert largest(staged.proposals, expected) < EXACT
    distances = (staged.proposals[:, None] - expected).abs().amax(dim=2)
    nearest, partner = distances.min(dim=1)
    print(f"{int((partner != torch.arange(300)).sum())} proposals at another rank, {float(nearest.max()):.1e} px")
    assert float(nearest.max()) < 0.05
    assert sorted(partner.tolist()) == list(range(300))
    assert float((objectness - objectness[partner]).abs().max()) < 5e-5


def test_pooled_vectors(
    staged: Computed, stages: dict[str, Tensor], outputs: dict[str, np.ndarray], same_kernels: bool
) -> None:
    first = torch.from_numpy(outputs[f"{STAGED}/common/proposals"])[:64]
    partner = (first[:, None] - staged.proposals).abs().amax(dim=2).argmin(dim=1)
    limit = EXACT if same_kernels else ROUNDING
    assert largest(staged.vectors[partner], stages["res5_pooled_first_64"]) < limit


@pytest.mark.parametrize("photo", [STAGED, pytest.param(OTHER, marks=pytest.mark.slow)])
def test_regions(
    loaded: LoadedModel,
    model: VinvlModel,
    outputs: dict[str, np.ndarray],
    reference: Find,
    photo: str,
    same_kernels: bool,
) -> None:
    """Both rules, from pixels to attributes."""
    names = load_label_map(
        reference("data/vinvl/label_map.json"), classes=X152_C4.classes, attributes=X152_C4.attributes
    )
    image = photograph(reference, photo)
    for rule in RULES:
        detector = VinvlDetector(loaded, names, VinvlOptions(postprocess=rule), device=choose_device("cpu"))
        (found,) = detector.detect([image])
        differences = compare_regions(found, recorded(outputs, photo, rule), names.attributes, rounding=ROUNDING)
        print(photo, rule, differences)
        if same_kernels:
            assert (differences.displaced, differences.at_limit) == (0, 0)
            assert max(differences.boxes, differences.features, differences.scores) < EXACT
        assert differences.at_limit <= 4  # of hundreds
        assert differences.boxes < 0.1 and differences.scores < ROUNDING and differences.features < ROUNDING
        assert list(found.tags) == [names.classes[label - 1] for label in found.labels]


@pytest.mark.slow
@pytest.mark.parametrize("photo", [STAGED, OTHER])
def test_all_is_the_literal_translations_bit_for_bit(
    weights: Path, loaded: LoadedModel, model: VinvlModel, reference: Find, photo: str
) -> None:
    """On this machine, whatever it is: so where the recording's kernels are, ours are its numbers."""
    names = load_label_map(
        reference("data/vinvl/label_map.json"), classes=X152_C4.classes, attributes=X152_C4.attributes
    )
    literal = ReferenceDetector(torch.load(weights, mmap=True, weights_only=True)["model"])
    image = photograph(reference, photo)
    expected = literal.detect(image)
    (found,) = VinvlDetector(loaded, names, VinvlOptions(), device=choose_device("cpu")).detect([image])
    assert np.array_equal(found.boxes, order_corners(expected.boxes).numpy())
    for part in ("labels", "scores", "features"):
        assert np.array_equal(getattr(found, part), getattr(expected, part).numpy()), part
    for row, scores in enumerate(found.attribute_scores):
        # The reference runs the region stage again, over fewer regions at once: other kernels, other last bits.
        kept = expected.attribute_scores[row][expected.attribute_scores[row] > 0].tolist()
        assert scores == pytest.approx(kept, abs=1e-5)
        indices = expected.attribute_labels[row][: len(kept)].tolist()
        assert set(found.attributes[row]) == {names.attributes[index - 1] for index in indices}


@pytest.mark.slow
def test_folded_the_regions_are_the_same_up_to_roundings(
    weights: Path, outputs: dict[str, np.ndarray], reference: Find
) -> None:
    names = load_label_map(
        reference("data/vinvl/label_map.json"), classes=X152_C4.classes, attributes=X152_C4.attributes
    )
    options = VinvlOptions(exact=False)
    detector = VinvlDetector(load_weights(weights, X152_C4), names, options, device=choose_device("cpu"))
    (found,) = detector.detect([photograph(reference, STAGED)])
    differences = compare_regions(found, recorded(outputs, STAGED, "per_class"), names.attributes, rounding=ROUNDING)
    print("folded", differences)
    assert differences.features < ROUNDING


def recorded(outputs: dict[str, np.ndarray], photo: str, rule: str) -> Expected:
    """What the reference recorded; a box of less than a pixel ends where it begins, as ours do."""
    parts = ("boxes", "labels", "scores", "features", "attribute_labels", "attribute_scores")
    found = {part: outputs[f"{photo}/{rule}/{part}"] for part in parts}
    found["boxes"] = order_corners(torch.from_numpy(found["boxes"])).numpy()
    return Expected(**found)


@pytest.mark.slow
def test_the_recorded_map_is_itself_as_far_from_the_exact_one(
    weights: Path, staged: Computed, stages: dict[str, Tensor], reference: Find
) -> None:
    """C4 in float64 is what all fp32 maps round: the recorded one, the literal translation's on this machine, and ours."""
    tensors = torch.load(weights, mmap=True, weights_only=True)["model"]
    literal = ReferenceDetector(tensors)
    exact = ReferenceDetector({name: value.double() for name, value in tensors.items() if name.startswith("backbone")})
    expected = stages["c4_every_8th_channel"]
    with torch.inference_mode():
        pixels = literal.preprocess(photograph(reference, STAGED))
        truth, c4 = exact.trunk(pixels.double())[:, ::8], literal.trunk(pixels)
        # From one map and the same boxes, only RoIAlign's place and the folding differ.
        vectors, _ = literal.classify(staged.feature_map.contiguous(), staged.proposals[:32])
    ours = staged.feature_map[:, ::8]
    for name, found in (("recorded", expected), ("literal", c4[:, ::8]), ("ours", ours)):
        print(f"{name}: {largest(found, truth):.1e} from float64, {largest(found, expected):.1e} from the recorded map")
    print(f"pooled vectors from one map: {largest(staged.vectors[:32], vectors):.1e}")
    assert torch.equal(staged.feature_map, c4)
    assert largest(ours, truth) < 1.5 * largest(expected, truth)
    assert largest(staged.vectors[:32], vectors) < 1e-5
