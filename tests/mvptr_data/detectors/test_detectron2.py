"""The detectron2 adapter: its files and rules everywhere, its networks where detectron2 is installed.

The real library's own inference is what the regions are compared with. Small random models: a C4 whose res5 is 2048 wide, an
FPN whose box head is, and the two ports of bottom-up attention.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mvptr_data.detectors import load_detector
from mvptr_data.detectors.boxes import clip
from mvptr_data.detectors.detectron2.attributes import take_attribute_head
from mvptr_data.detectors.detectron2.config_file import read_config
from mvptr_data.detectors.detectron2.names import read_vocabulary
from mvptr_data.detectors.detectron2.options import Detectron2Options
from mvptr_data.detectors.detectron2.postprocess import choose
from mvptr_data.detectors.detectron2.weights import read_weights
from mvptr_data.errors import DamagedFileError, InputError, MissingDependencyError

IS_INSTALLED = importlib.util.find_spec("detectron2") is not None
needs_detectron2 = pytest.mark.skipif(not IS_INSTALLED, reason="detectron2 is not installed here")

CLASSES, ATTRIBUTES = 6, 5
Change = Callable[[Any], None]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- configs


def test_bases_are_laid_under_a_config(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "MODEL: {A: 1, B: {C: 2, D: [1, 2]}}\nVERSION: 2\n")
    write(tmp_path / "x/middle.yaml", "_BASE_: ../base.yaml\nMODEL: {B: {D: [3]}}\n")
    path = write(tmp_path / "x/top.yml", "_BASE_: middle.yaml\nMODEL: {A: 5}\n")
    assert read_config(path) == {"MODEL": {"A": 5, "B": {"C": 2, "D": [3]}}, "VERSION": 2}
    two = write(tmp_path / "x/two.yaml", "_BASE_: [../base.yaml, top.yml]\n")
    assert read_config(two) == read_config(path)


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("c.py", "raise SystemExit", InputError, "is Python, which would be run"),
        ("c.json", "{}", InputError, "is no YAML file"),
        ("c.yaml", "_BASE_: c.yaml", InputError, "builds on itself"),
        ("c.yaml", "_BASE_: /etc/hostname.yaml", InputError, "has to be a relative path"),
        ("c.yaml", "_BASE_: ~/x.yaml", InputError, "has to be a relative path"),
        ("c.yaml", "_BASE_: https://a.example/x.yaml", InputError, "has to be a relative path"),
        ("c.yaml", "_BASE_: 5", InputError, "has to be a relative path"),
        ("c.yaml", "_BASE_: ../../x.yaml", InputError, "is outside of"),
        ("c.yaml", "_BASE_: out.yaml", InputError, "is outside of"),
        ("c.yaml", "_BASE_: ../passwd", InputError, "is no YAML file"),
        ("c.yaml", "_BASE_: gone.yaml", InputError, "cannot read the config .*No such file"),
        (
            "c.yaml",
            "MODEL: !!python/object/apply:os.system ['touch PROOF']",
            DamagedFileError,
            "no plain YAML: .* line 1",
        ),
        ("c.yaml", "MODEL: !!python/name:os.system", DamagedFileError, "no plain YAML"),
        ("c.yaml", "a: &a [1, 1]\nb: [*a, *a]", DamagedFileError, "aliases"),
        ("c.yaml", "- 1", DamagedFileError, "no names at its top"),
        ("c.yaml", "a: [", DamagedFileError, "no plain YAML"),
        ("c.yaml", "a: " + "[" * 3000, DamagedFileError, "no plain YAML: RecursionError"),
        ("c.yaml", "a: 2020-99-99", DamagedFileError, r"no plain YAML: ValueError \(month must be"),
        ("c.yaml", "a: !!bool maybe", DamagedFileError, "no plain YAML: KeyError"),
        ("c.yaml", "a: !!int ''", DamagedFileError, "no plain YAML: IndexError"),
        ("c.yaml", "a: " + "9" * 5000, DamagedFileError, "no plain YAML: ValueError"),
        ("c.yaml", "a: " + "x" * (1 << 20), DamagedFileError, "more than"),
    ],
)
def test_configs_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, error: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x.yaml", "A: 1")
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/out.yaml").symlink_to(tmp_path / "x.yaml")
    path = write(tmp_path / "a/b" / name, text)
    with pytest.raises(error, match=message):
        read_config(path)
    assert not (tmp_path / "PROOF").exists()


def test_a_chain_of_bases_ends(tmp_path: Path) -> None:
    for number in range(9):
        write(tmp_path / f"{number}.yaml", f"_BASE_: {number + 1}.yaml")
    write(tmp_path / "9.yaml", "A: 1")
    assert read_config(tmp_path / "2.yaml") == {"A": 1}
    with pytest.raises(InputError, match="more than 7 others"):
        read_config(tmp_path / "1.yaml")


# --- weights


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_weights_come_from_tensor_files_alone(tmp_path: Path) -> None:
    tensors = {"module.a": torch.arange(3.0), "module.b": torch.ones(2, 2)}
    torch.save({"model": tensors, "iteration": 5}, tmp_path / "a.pth")
    torch.save(tensors, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    save_file({name.removeprefix("module."): value for name, value in tensors.items()}, tmp_path / "c.safetensors")
    digests = set()
    for name in ("a.pth", "b.pt", "c.safetensors"):
        found, digest = read_weights(tmp_path / name)
        digests.add(digest)
        assert sorted(found) == ["a", "b"] and found["a"].tolist() == [0.0, 1.0, 2.0]
    assert len(digests) == 3


def test_no_pickle_is_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    for name in ("x.pkl", "x.pickle"):
        (tmp_path / name).write_bytes(pickle.dumps({"model": Trap(proof)}))
        with pytest.raises(InputError, match=r"runs whatever code it holds.*Convert it once"):
            read_weights(tmp_path / name)
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"model": Trap(proof)}))
    torch.save({"model": Trap(proof)}, tmp_path / "y.pth")
    for name in ("x.pth", "y.pth"):
        with pytest.raises(DamagedFileError, match="cannot read tensors"):
            read_weights(tmp_path / name)
    assert not proof.exists()


def test_weights_that_cannot_be_used(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pth")
    (tmp_path / "torn.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:2000])
    save_file({"a": torch.zeros(1000)}, tmp_path / "torn.safetensors")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "torn.safetensors").read_bytes()[:-8])
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"a": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pth")
    for name, error, message in (
        ("torn.pth", DamagedFileError, "cannot read tensors"),
        ("torn.safetensors", DamagedFileError, "cannot read tensors"),
        ("list.pth", DamagedFileError, "no table of tensors"),
        ("nan.pth", DamagedFileError, "not finite"),
        ("gone.pth", InputError, "No such file"),
        ("x.onnx", InputError, "of no known kind"),
    ):
        with pytest.raises(error, match=message):
            read_weights(tmp_path / name)


# --- names


def test_vocabularies(tmp_path: Path) -> None:
    path = write(tmp_path / "v.txt", "yolk\ngray,grey\n traffic light \n\n")
    assert read_vocabulary(path, 3, "classes") == ("yolk", "gray", "traffic light")
    write(path, "__background__\na\nb")
    assert read_vocabulary(path, 2, "classes") == ("a", "b")
    with pytest.raises(InputError, match="names 3 attributes, the model has 4"):
        read_vocabulary(path, 4, "attributes")
    write(path, "a\n\nb")
    with pytest.raises(InputError, match=r"line 2 .* names nothing"):
        read_vocabulary(path, 3, "classes")
    with pytest.raises(InputError, match="cannot read the classes"):
        read_vocabulary(tmp_path / "gone", 3, "classes")


# --- the choice of regions


def brute_choice(boxes: torch.Tensor, scores: torch.Tensor, options: Detectron2Options) -> list[tuple[int, int]]:
    """Candidates in order of score, each kept unless a better one of its class overlaps it too much."""
    candidates = [
        (float(scores[r, c]), r, c)
        for r in range(len(scores))
        for c in range(scores.shape[1] - 1)
        if scores[r, c] >= options.score_threshold or c == int(scores[r, :-1].argmax())
    ]
    kept: list[tuple[float, int, int]] = []
    for score, r, c in sorted(candidates, reverse=True):
        one = boxes[r, 4 * c : 4 * c + 4]
        for _, other_r, other_c in kept:
            other = boxes[other_r, 4 * other_c : 4 * other_c + 4]
            low, high = torch.maximum(one[:2], other[:2]), torch.minimum(one[2:], other[2:])
            overlap = (high - low).clamp(min=0).prod()
            union = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - overlap
            if other_c == c and overlap / union > 0.4:
                break
        else:
            kept.append((score, r, c))
    confident = sum(score >= options.score_threshold for score, _, _ in kept)
    return [(r, c) for _, r, c in kept[: min(max(confident, options.min_regions), options.max_regions)]]


@pytest.mark.parametrize("seed", range(6))
def test_regions_are_chosen_by_class_and_filled_up(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand((30, 1, 2), generator=generator) * 40
    low = low + torch.rand((30, CLASSES, 2), generator=generator) * 4
    boxes = torch.cat([low, low + 20 + torch.rand((30, CLASSES, 2), generator=generator) * 20], dim=2).reshape(30, -1)
    scores = (torch.randn((30, CLASSES + 1), generator=generator) * 1.5).softmax(dim=1)
    for options in (
        Detectron2Options(min_regions=2, max_regions=8),
        Detectron2Options(min_regions=20, max_regions=25, score_threshold=0.5),
    ):
        proposals, classes, found, values = choose(boxes, scores, height=90, width=90, nms_iou=0.4, options=options)
        expected = brute_choice(boxes, scores, options)
        assert list(zip(proposals.tolist(), classes.tolist(), strict=True)) == expected
        assert torch.equal(values, scores[proposals, classes])
        assert torch.equal(found, torch.stack([boxes[r, 4 * c : 4 * c + 4] for r, c in expected]))
        assert 2 <= len(values) <= options.max_regions


def test_no_proposals_and_wild_numbers() -> None:
    options = Detectron2Options()
    nothing = choose(torch.zeros(0, 8), torch.zeros(0, 3), height=10, width=10, nms_iou=0.5, options=options)
    assert [len(part) for part in nothing] == [0, 0, 0, 0]
    boxes = torch.tensor([[0.0, 0.0, float("nan"), 5.0], [-5.0, 1.0, 50.0, 60.0]])
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
    _, _, found, values = choose(boxes, scores, height=10, width=20, nms_iou=0.5, options=options)
    assert found.tolist() == [[0.0, 1.0, 20.0, 10.0]] and values.tolist() == [pytest.approx(0.8)]


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "fp8"},
        {"score_threshold": 1.5},
        {"score_threshold": "0.2"},
        {"nms_iou": -1},
        {"min_regions": 0},
        {"min_regions": 2.5},
        {"max_regions": 5},
        {"attribute_threshold": True},
    ],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Detectron2Options(**options)


# --- attributes


def head_tensors(port: str, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """An attribute head's tensors under the names of a port."""
    prefix = "roi_heads.attribute_predictor" if port == "milvlg" else "roi_heads.box_predictor"
    embedding, hidden = ("obj_embed", "fc.0") if port == "milvlg" else ("cls_embedding", "fc_attr")
    outputs = ATTRIBUTES + (port == "airsplay")
    shapes = {
        f"{prefix}.{embedding}.weight": (CLASSES + 1, 16),
        f"{prefix}.{hidden}.weight": (24, 2048 + 16),
        f"{prefix}.{hidden}.bias": (24,),
        f"{prefix}.attr_score.weight": (outputs, 24),
        f"{prefix}.attr_score.bias": (outputs,),
    }
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


@pytest.mark.parametrize("port", ["milvlg", "airsplay"])
def test_attribute_heads_of_both_ports(port: str) -> None:
    tensors = head_tensors(port, torch.Generator().manual_seed(3))
    embedding, hidden, hidden_bias, output, output_bias = tensors.values()
    rest = {"other": torch.zeros(1)}
    mine = {**tensors, **rest}
    head = take_attribute_head(mine, features=2048, classes=CLASSES)
    assert head is not None and mine == rest and head.attributes == ATTRIBUTES
    vectors, classes = torch.randn(4, 2048), torch.tensor([0, 2, CLASSES, 1])
    with torch.inference_mode():
        found = head(vectors, classes)
    for row, vector, index in zip(found, vectors, classes, strict=True):
        logits = output @ (hidden @ torch.cat([vector, embedding[index]]) + hidden_bias).clamp(min=0) + output_bias
        assert torch.allclose(row, logits[:ATTRIBUTES].softmax(0), atol=1e-5)
    assert take_attribute_head(dict(rest), features=2048, classes=CLASSES) is None
    for name in tensors:
        with pytest.raises(DamagedFileError, match="have an attribute head, but no"):
            take_attribute_head(
                {key: value for key, value in tensors.items() if key != name}, features=2048, classes=CLASSES
            )
    with pytest.raises(DamagedFileError, match="would fit the config"):
        take_attribute_head(dict(tensors), features=2048, classes=CLASSES + 1)


# --- the library


@pytest.mark.skipif(IS_INSTALLED, reason="detectron2 is installed here")
def test_without_detectron2_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"detectron2.readthedocs.io/en/latest/tutorials/install.html"):
        load_detector("detectron2", config=tmp_path / "c.yaml", weights=tmp_path / "w.pth")


def test_config_and_weights_are_needed() -> None:
    with pytest.raises(InputError, match=r"needs config.*--config FILE"):
        load_detector("detectron2", weights="w.pth")
    with pytest.raises(InputError, match="needs weights"):
        load_detector("detectron2", config="c.yaml")
    with pytest.raises(InputError, match="has no option 'speed'"):
        load_detector("detectron2", speed=1)


C4 = f"""\
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  MASK_ON: True
  RESNETS: {{DEPTH: 50, WIDTH_PER_GROUP: 4, STEM_OUT_CHANNELS: 16}}
  RPN: {{PRE_NMS_TOPK_TEST: 200, POST_NMS_TOPK_TEST: 60}}
  ROI_HEADS: {{NAME: Res5ROIHeads, NUM_CLASSES: {CLASSES}}}
  ROI_BOX_HEAD: {{POOLER_RESOLUTION: 6}}
  ROI_MASK_HEAD: {{NAME: MaskRCNNConvUpsampleHead, CONV_DIM: 8}}
INPUT: {{MIN_SIZE_TEST: 96, MAX_SIZE_TEST: 160}}
VERSION: 2
"""
FPN = f"""\
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  BACKBONE: {{NAME: build_resnet_fpn_backbone}}
  RESNETS: {{DEPTH: 50, WIDTH_PER_GROUP: 4, STEM_OUT_CHANNELS: 16, RES2_OUT_CHANNELS: 32, OUT_FEATURES: [res2, res3, res4, res5]}}
  FPN: {{IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 16}}
  ANCHOR_GENERATOR: {{SIZES: [[16], [32], [64], [128], [256]]}}
  RPN: {{IN_FEATURES: [p2, p3, p4, p5, p6], PRE_NMS_TOPK_TEST: 100, POST_NMS_TOPK_TEST: 60}}
  ROI_HEADS: {{NAME: StandardROIHeads, NUM_CLASSES: {CLASSES}, IN_FEATURES: [p2, p3, p4, p5]}}
  ROI_BOX_HEAD: {{NAME: FastRCNNConvFCHead, NUM_FC: 2, FC_DIM: 2048, POOLER_RESOLUTION: 3, CLS_AGNOSTIC_BBOX_REG: True}}
INPUT: {{MIN_SIZE_TEST: 96, MAX_SIZE_TEST: 160, FORMAT: RGB}}
"""
MILVLG = f"""\
MODEL:
  META_ARCHITECTURE: "GeneralizedRCNN"
  ATTRIBUTE_ON: True
  BUA: {{ATTRIBUTE_ON: True, EXTRACTOR: {{MODE: 1, MIN_BOXES: 10, MAX_BOXES: 20, CONF_THRESH: 0.4}}}}
  RESNETS: {{DEPTH: 50, WIDTH_PER_GROUP: 4, STEM_OUT_CHANNELS: 16}}
  RPN: {{PRE_NMS_TOPK_TEST: 200, POST_NMS_TOPK_TEST: 60, BOUNDARY_THRESH: 0}}
  ROI_HEADS: {{NAME: "AttributeRes5ROIHeads", NUM_CLASSES: {CLASSES}}}
  ROI_BOX_HEAD: {{POOLER_SAMPLING_RATIO: 2, POOLER_RESOLUTION: 6}}
DATASETS:
  TRAIN: ("visual_genome_train", "visual_genome_val")
  TEST: ("visual_genome_test",)
INPUT:
  MIN_SIZE_TRAIN: (600,)
  MIN_SIZE_TEST: 96
  MAX_SIZE_TEST: 160
VERSION: 2
"""
AIRSPLAY = f"""\
MODEL:
  CAFFE_MAXPOOL: True
  PIXEL_MEAN: [102.9801, 115.9465, 122.7717]
  MASK_ON: False
  RESNETS: {{DEPTH: 50, WIDTH_PER_GROUP: 4, STEM_OUT_CHANNELS: 16}}
  PROPOSAL_GENERATOR: {{HID_CHANNELS: 32}}
  ANCHOR_GENERATOR: {{SIZES: [[64, 128, 256, 512]]}}
  RPN: {{PRE_NMS_TOPK_TEST: 200, POST_NMS_TOPK_TEST: 60}}
  ROI_HEADS: {{NAME: Res5ROIHeads, NUM_CLASSES: {CLASSES}}}
  ROI_BOX_HEAD: {{RES5HALVE: False, POOLER_TYPE: "ROIPool", ATTR: True, NUM_ATTRS: {ATTRIBUTES}, POOLER_RESOLUTION: 6}}
INPUT: {{MIN_SIZE_TEST: 96, MAX_SIZE_TEST: 160}}
"""
CONFIGS = {"c4": C4, "fpn": FPN, "milvlg": MILVLG, "airsplay": AIRSPLAY}


def picture(seed: int = 1, width: int = 120, height: int = 90) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (8, 10, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def calibrated(model: Any) -> None:
    """A random network, but one whose maps keep their scale, whose boxes are boxes, and whose classes differ."""

    def normalize(module: Any, inputs: tuple[Any, ...]) -> None:
        module.running_mean.copy_(inputs[0].mean(dim=(0, 2, 3)))
        module.running_var.copy_(inputs[0].var(dim=(0, 2, 3)).clamp(min=1e-4))

    hooks = [part.register_forward_pre_hook(normalize) for part in model.modules() if hasattr(part, "running_var")]
    found: list[torch.Tensor] = []
    predictor = model.roi_heads.box_predictor
    hooks.append(predictor.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0])))
    pixels = torch.from_numpy(np.array(picture())).permute(2, 0, 1).float()
    with torch.inference_mode():
        model.inference([{"image": pixels}])
        for hook in hooks:
            hook.remove()
        for layer, scale in ((predictor.cls_score, 2.0), (predictor.bbox_pred, 0.6)):
            layer.weight.copy_(torch.randn_like(layer.weight))
            centered = found[0] - found[0].mean(dim=0)
            layer.weight.mul_(scale / (centered @ layer.weight.T).std())
            layer.bias.copy_(-(found[0].mean(dim=0) @ layer.weight.T))


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """`model_files("c4")`: options that load that model; its files hold what detectron2's own trainer would write."""
    made: dict[str, dict[str, Any]] = {}

    def make(kind: str) -> dict[str, Any]:
        if kind in made:
            return made[kind]
        from detectron2.config import get_cfg
        from detectron2.modeling import build_model

        folder = tmp_path_factory.mktemp(kind)
        config = write(folder / "c.yaml", CONFIGS[kind])
        torch.manual_seed(7)
        settings = get_cfg()
        plain = write(folder / "plain.yaml", C4 if kind in ("milvlg", "airsplay") else CONFIGS[kind])
        settings.merge_from_file(str(plain))
        settings.MODEL.DEVICE = "cpu"
        if kind == "airsplay":
            settings.MODEL.RPN.CONV_DIMS = [32]
            settings.MODEL.ANCHOR_GENERATOR.SIZES = [[64, 128, 256, 512]]
        model = build_model(settings).eval()
        calibrated(model)
        tensors = dict(model.state_dict())
        if kind in ("milvlg", "airsplay"):
            tensors |= head_tensors(kind, torch.Generator().manual_seed(9))
            tensors = {name: value for name, value in tensors.items() if "mask_head" not in name}
        torch.save({"model": tensors, "iteration": 10}, folder / "w.pth")
        names = write(folder / "classes.txt", "\n".join(f"thing {number},alias" for number in range(CLASSES)))
        attributes = write(folder / "attributes.txt", "\n".join(f"look {number}" for number in range(ATTRIBUTES)))
        options = {"config": config, "weights": folder / "w.pth", "classes": names, "device": "cpu"}
        made[kind] = options | ({"attributes": attributes} if kind in ("milvlg", "airsplay") else {})
        return made[kind]

    return make


@needs_detectron2
@pytest.mark.parametrize("kind", ["c4", "fpn", "milvlg"])
def test_regions_are_those_of_detectron2(kind: str, model_files: Callable[[str], dict[str, Any]]) -> None:
    """Above the threshold: its own resizing, inference and rescaling, box by box and score by score."""
    from detectron2.config import get_cfg
    from detectron2.engine import DefaultPredictor

    options = model_files(kind)
    settings = get_cfg()
    settings.merge_from_file(str(Path(options["config"]).with_name("plain.yaml")))
    settings.MODEL.MASK_ON = False
    if kind == "milvlg":
        settings.MODEL.RPN.BOUNDARY_THRESH = 0
        settings.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO = 2
    settings.MODEL.DEVICE, settings.MODEL.WEIGHTS = "cpu", str(options["weights"])
    settings.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.2
    image = picture()
    expected = DefaultPredictor(settings)(np.asarray(image)[:, :, ::-1])["instances"]
    detector = load_detector("detectron2", **options)
    (regions,) = detector.detect([image])
    count = sum(regions.scores >= 0.2)
    assert len(expected) == count > 3
    assert np.abs(regions.scores[:count] - expected.scores.numpy()).max() < 1e-6
    assert (regions.labels[:count] - 1).tolist() == expected.pred_classes.tolist()
    # A data set's boxes are at least a pixel wide and high, detectron2's may be thinner.
    boxes = clip(expected.pred_boxes.tensor, image.width, image.height).numpy()
    assert np.abs(regions.boxes[:count] - boxes).max() < 1e-4
    assert len(regions) >= 10 and regions.tags[0] == f"thing {regions.labels[0] - 1}"
    # The features are those that the library's own head classifies as it said.
    head = detector._model.roi_heads.box_predictor  # type: ignore[attr-defined]
    with torch.inference_mode():
        scores = head(torch.from_numpy(regions.features))[0].softmax(1)
    own = scores[torch.arange(len(regions)), torch.from_numpy(regions.labels).long() - 1]
    assert np.abs(own.numpy() - regions.scores).max() < 1e-6


@needs_detectron2
@pytest.mark.parametrize("kind", ["milvlg", "airsplay"])
def test_attributes(kind: str, model_files: Callable[[str], dict[str, Any]]) -> None:
    options = model_files(kind)
    detector: Any = load_detector("detectron2", **options, attribute_threshold=0.25)
    (regions,) = detector.detect([picture()])
    assert any(regions.attributes)
    with torch.inference_mode():
        vectors = torch.from_numpy(regions.features)
        classes = detector._model.roi_heads.box_predictor(vectors)[0].argmax(1)
        expected = detector._head(vectors, classes)
    for names, values, row in zip(regions.attributes, regions.attribute_scores, expected, strict=True):
        wanted = sorted(((float(value), index) for index, value in enumerate(row) if value >= 0.25), reverse=True)
        assert names == tuple(f"look {index}" for _, index in wanted)
        assert values == pytest.approx([value for value, _ in wanted], abs=1e-5)


@needs_detectron2
def test_what_airsplays_port_changes(model_files: Callable[[str], dict[str, Any]]) -> None:
    """Caffe's pooling, the narrower RPN, and a res5 that keeps the crop's size."""
    detector: Any = load_detector("detectron2", **model_files("airsplay"))
    model = detector._model
    assert model.proposal_generator.rpn_head.conv.out_channels == 32
    with torch.inference_mode():
        assert model.backbone.stem(torch.zeros(1, 3, 64, 64)).shape[2:] == (16, 16)
        assert model.backbone.stem(torch.zeros(1, 3, 66, 66)).shape[2:] == (16, 16)
        crop = torch.randn(2, 1024, 6, 6)
        wide = model.roi_heads.res5(crop)
        assert wide.shape == (2, 2048, 6, 6)


@needs_detectron2
@pytest.mark.parametrize("kind", ["c4", "fpn"])
def test_neighbors_and_preparation_change_nothing(kind: str, model_files: Callable[[str], dict[str, Any]]) -> None:
    detector: Any = load_detector("detectron2", **model_files(kind))
    images = [picture(1), picture(2, 80, 130), picture(3, 300, 40)]
    alone = [detector.detect([image])[0] for image in images]
    for together in (detector.detect(images), detector.detect([detector.prepare(image) for image in images])):
        for one, other, image in zip(alone, together, images, strict=True):
            assert np.array_equal(one.features, other.features) and np.array_equal(one.boxes, other.boxes)
            assert one.tags == other.tags and len(one) >= 1
            assert (one.boxes >= 0).all() and (one.boxes[:, 2:] <= [image.width, image.height]).all()
            assert (one.boxes[:, 2:] > one.boxes[:, :2]).all()
    with pytest.raises(ValueError, match="RGB image is needed"):
        detector.detect([picture().convert("L")])


@needs_detectron2
def test_overflow_is_no_empty_image(model_files: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    """Maps beyond fp32 leave the library without proposals; that is an error of this image, not an image without things."""
    options = model_files("c4")
    tensors = torch.load(options["weights"], weights_only=True)["model"]
    tensors["backbone.stem.conv1.weight"] = tensors["backbone.stem.conv1.weight"] * 1e38
    torch.save(tensors, tmp_path / "w.pth")
    detector = load_detector("detectron2", **options | {"weights": tmp_path / "w.pth"})
    with pytest.raises(ValueError, match="no box with finite numbers"):
        detector.detect([picture()])


@needs_detectron2
def test_bf16_agrees(model_files: Callable[[str], dict[str, Any]]) -> None:
    """Random weights leave little between a box and the next, so each vector is compared with the nearest of the other run."""
    options = model_files("c4") | {"score_threshold": 0.0, "min_regions": 60, "max_regions": 60}
    full, half = (
        load_detector("detectron2", **options, precision=name).detect([picture()])[0] for name in ("fp32", "bf16")
    )
    assert half.features.dtype == np.float32
    first, second = (
        regions.features / np.linalg.norm(regions.features, axis=1, keepdims=True) for regions in (full, half)
    )
    assert 0.95 < np.median((first @ second.T).max(axis=1)) < 0.99999
    with pytest.raises(InputError, match="fp16 on a CPU"):
        load_detector("detectron2", **options, precision="fp16")


@needs_detectron2
def test_configuration_says_all_that_matters(model_files: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    options = model_files("c4")
    first = load_detector("detectron2", **options).configuration()
    assert json.loads(json.dumps(first)) == first and first["name"] == "detectron2"
    assert load_detector("detectron2", **options).configuration() == first
    moved = write(tmp_path / "moved.yaml", C4 + "OUTPUT_DIR: ./elsewhere\n")
    assert load_detector("detectron2", **options | {"config": moved}).configuration() == first
    sized = write(tmp_path / "sized.yaml", C4.replace("MIN_SIZE_TEST: 96", "MIN_SIZE_TEST: 80"))
    names = write(tmp_path / "names.txt", "\n".join("abcdef"))
    for change in ({"config": sized}, {"classes": names}, {"nms_iou": 0.4}, {"precision": "bf16"}, {"max_regions": 50}):
        assert load_detector("detectron2", **options | change).configuration() != first


@needs_detectron2
def test_names_from_detectron2_itself(model_files: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    """A model of COCO knows its 80 names; a data set nobody registered needs a file."""
    options = {name: value for name, value in model_files("c4").items() if name != "classes"}
    with pytest.raises(InputError, match=r"nothing says what the model's 6 classes are called.*classes=FILE"):
        load_detector("detectron2", **options)
    known = write(tmp_path / "coco.yaml", C4 + 'DATASETS:\n  TEST: ("coco_2017_val",)\n')
    with pytest.raises(InputError, match="'coco_2017_val' names 80 classes, the model has 6"):
        load_detector("detectron2", **options | {"config": known})
    label_map = write(
        tmp_path / "m.json", json.dumps({"label_to_idx": {name: n for n, name in enumerate("abcdef", 1)}})
    )
    (regions,) = load_detector("detectron2", **options, label_map=label_map).detect([picture()])
    assert regions.tags[0] == "abcdef"[regions.labels[0] - 1]


@needs_detectron2
def test_models_that_do_not_fit(model_files: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    options = model_files("c4")
    tensors = torch.load(options["weights"], weights_only=True)["model"]
    numbers = itertools.count()

    def config(text: str) -> dict[str, Any]:
        return options | {"config": write(tmp_path / f"{next(numbers)}.yaml", text)}

    def weights(changed: dict[str, Any]) -> dict[str, Any]:
        path = tmp_path / f"{next(numbers)}.safetensors"
        save_file({name: value.contiguous() for name, value in changed.items()}, path)
        return options | {"weights": path}

    name = "backbone.res2.0.conv1.weight"
    less = {key: value for key, value in tensors.items() if key != name}
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        (
            model_files("fpn") | config(FPN.replace("2048", "64")),
            InputError,
            "features of 64 numbers, a data set holds 2048",
        ),
        (
            config(C4.replace("GeneralizedRCNN", "RetinaNet")),
            InputError,
            "a RetinaNet with Res5ROIHeads, which gives no",
        ),
        (
            config(C4.replace("Res5ROIHeads", "CascadeROIHeads")),
            InputError,
            "with CascadeROIHeads, which gives no single",
        ),
        (
            config(C4.replace("MODEL:\n", "MODEL:\n  PROPOSAL_GENERATOR: {NAME: PrecomputedProposals}\n")),
            InputError,
            "takes its proposals from PrecomputedProposals",
        ),
        (config(C4 + "NOVEL: {A: 1}\n"), InputError, "cannot use the config: .*NOVEL"),
        (config(C4.replace("VERSION: 2", "VERSION: 1")), InputError, "VERSION 1"),
        (config(C4.replace("DEPTH: 50", "DEPTH: 51")), InputError, "cannot build the config's network"),
        (
            config(C4.replace(f"NUM_CLASSES: {CLASSES}", "NUM_CLASSES: -1")),
            InputError,
            "cannot build the config's network: .*negative dimension",
        ),
        (
            config(C4.replace("ROI_HEADS: {", "ROI_HEADS: {NMS_THRESH_TEST: null, ")),
            InputError,
            "no value for MODEL.ROI_HEADS.NMS_THRESH_TEST",
        ),
        (
            config(AIRSPLAY.replace("HID_CHANNELS: 32", "HID_CHANNELS: null")),
            InputError,
            "no value for MODEL.PROPOSAL_GENERATOR.HID_CHANNELS",
        ),
        (
            config(C4.replace(f"NUM_CLASSES: {CLASSES}", "NUM_CLASSES: 9")),
            DamagedFileError,
            "do not fit the config: size mismatch",
        ),
        (config(MILVLG), DamagedFileError, "the config has attributes, the weights have none"),
        (weights(less), DamagedFileError, f"the weights lack '{name}'"),
        (
            weights({**tensors, "backbone.res9.weight": torch.zeros(1)}),
            DamagedFileError,
            "unexpectedly, 'backbone.res9",
        ),
    ]
    for changed, error, message in cases:
        with pytest.raises(error, match=message):
            load_detector("detectron2", **changed)
    assert load_detector("detectron2", **weights(tensors)).detect([picture()])


@needs_detectron2
def test_a_whole_run(model_files: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    """The adapter under the pipeline, prepared in its decoding threads."""
    from pipelines.cluster import ClusterOptions
    from pipelines.extract_regions import extract_regions
    from pipelines.extract_shard import DetectorChoice

    (tmp_path / "images").mkdir()
    for number in range(5):
        picture(number, 100 + 10 * number).save(tmp_path / f"images/{number}.jpg")
    options = tuple(sorted((name, str(value)) for name, value in model_files("milvlg").items()))
    summary = extract_regions(
        str(tmp_path / "images"),
        str(tmp_path / "out"),
        detector=DetectorChoice(name="detectron2", options=options),
        samples_per_shard=3,
        cluster=ClusterOptions(cluster="inline"),
        quiet=True,
    )
    assert summary.counts == {"inputs": 5, "ok": 5} and summary.regions >= 50
