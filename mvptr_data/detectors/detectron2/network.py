"""A config's network, built by detectron2 and filled with weights.

Shape shorthand: R proposals of an image, C classes without the background, D = 2048.

Two ports of bottom-up attention change detectron2 itself; what their configs ask for beyond it is done here:
MILVLG/bottom-up-attention.pytorch (`configs/d2`) and airsplay/py-bottom-up-attention (`configs/VG-Detection`).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mvptr_data.detectors.detectron2.attributes import AttributeHead, take_attribute_head
from mvptr_data.detectors.interface import FEATURE_SIZE
from mvptr_data.errors import DamagedFileError, InputError

#: Heads that give one pooled vector a box, and the names that the ports have for them.
HEADS = {
    "Res5ROIHeads": "Res5ROIHeads",
    "AttributeRes5ROIHeads": "Res5ROIHeads",
    "StandardROIHeads": "StandardROIHeads",
    "AttributeStandardROIHeads": "StandardROIHeads",
}
#: Settings that only the ports know, with what stands for "as in detectron2".
_PORT_SETTINGS: dict[str, Any] = {
    "INPUT.MAX_ATTR_PER_INS": 16,
    "MODEL.ATTRIBUTE_ON": False,
    "MODEL.EXTRACT_FEATS": False,
    "MODEL.EXTRACT_MODE": 1,
    "MODEL.RPN.BBOX_LOSS_WEIGHT": 1.0,
    "MODEL.ROI_BOX_HEAD.BBOX_LOSS_WEIGHT": 1.0,
    "MODEL.ROI_ATTRIBUTE_HEAD.OBJ_EMBED_DIM": 256,
    "MODEL.ROI_ATTRIBUTE_HEAD.FC_DIM": 512,
    "MODEL.ROI_ATTRIBUTE_HEAD.LOSS_WEIGHT": 0.2,
    "MODEL.ROI_ATTRIBUTE_HEAD.NUM_CLASSES": 400,
    "MODEL.BUA.ATTRIBUTE_ON": False,
    "MODEL.BUA.EXTRACT_FEATS": False,
    "MODEL.BUA.EXTRACTOR.MODE": 1,
    "MODEL.BUA.EXTRACTOR.MIN_BOXES": 10,
    "MODEL.BUA.EXTRACTOR.MAX_BOXES": 100,
    "MODEL.BUA.EXTRACTOR.CONF_THRESH": 0.2,
    "MODEL.BUA.EXTRACTOR.OUTPUT_DIR": ".output/",
    "MODEL.CAFFE_MAXPOOL": False,
    "MODEL.PROPOSAL_GENERATOR.HID_CHANNELS": -1,
    "MODEL.ROI_BOX_HEAD.RES5HALVE": True,
    "MODEL.ROI_BOX_HEAD.ATTR": False,
    "MODEL.ROI_BOX_HEAD.NUM_ATTRS": -1,
}
#: Settings that are looked at here, and that a config may set to null.
_NEEDED = (
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
    "MODEL.PROPOSAL_GENERATOR.HID_CHANNELS",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST",
    "DATASETS.TEST",
    "DATASETS.TRAIN",
)
#: Tensors of a checkpoint that features do not need.
_UNUSED = (
    "pixel_mean",
    "pixel_std",
    "proposal_generator.anchor_generator.",
    "roi_heads.mask_head.",
    "roi_heads.keypoint_head.",
    "roi_heads.mask_pooler.",
)


@dataclass(frozen=True, slots=True)
class Found:
    """What the network says of one image: vectors [R, D], boxes [R, 4 C] or [R, 4], probabilities [R, C + 1], float32."""

    vectors: Tensor
    boxes: Tensor
    probabilities: Tensor


def settings_of(content: Mapping[str, Any]) -> Any:
    """detectron2's settings under those of a config file, for a model that gives features.

    Raises `InputError` for a setting that detectron2 does not know and for models without box-head features.
    """
    from detectron2.config import CfgNode, get_cfg

    settings = get_cfg()
    for name, value in _PORT_SETTINGS.items():
        _add(settings, name, value, CfgNode)
    version = content.get("VERSION", 2)
    if version != 2:
        raise InputError(
            f"the config has VERSION {version!r}", "Load and save it with detectron2 to get one of version 2."
        )
    try:
        settings.merge_from_other_cfg(CfgNode(dict(content)))
    except (KeyError, ValueError, AssertionError, TypeError) as error:
        raise InputError(
            f"detectron2 cannot use the config: {error.args[0] if error.args else error}",
            "Configs of bottom-up attention's caffe mode, and of projects with code of their own, cannot be used.",
        ) from error
    if lacking := next((name for name in _NEEDED if _value(settings, name) is None), None):
        raise InputError(f"the config has no value for {lacking}", "Give one, or leave the line out.")
    model = settings.MODEL
    if model.META_ARCHITECTURE != "GeneralizedRCNN" or model.ROI_HEADS.NAME not in HEADS:
        raise InputError(
            f"the config is of a {model.META_ARCHITECTURE} with {model.ROI_HEADS.NAME}, which gives no single vector a box",
            f"Use a GeneralizedRCNN with one of {', '.join(HEADS)}.",
        )
    if model.PROPOSAL_GENERATOR.NAME != "RPN":
        raise InputError(
            f"the config takes its proposals from {model.PROPOSAL_GENERATOR.NAME}",
            "Use a config with PROPOSAL_GENERATOR.NAME RPN.",
        )
    model.ROI_HEADS.NAME = HEADS[model.ROI_HEADS.NAME]
    if model.ROI_BOX_HEAD.NAME == "AttributeFastRCNNConvFCHead":
        model.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    if model.PROPOSAL_GENERATOR.HID_CHANNELS > 0:
        model.RPN.CONV_DIMS = [model.PROPOSAL_GENERATOR.HID_CHANNELS]
    model.MASK_ON = model.KEYPOINT_ON = model.LOAD_PROPOSALS = False
    model.DEVICE, model.WEIGHTS = "cpu", ""
    settings.freeze()
    return settings


def build_network(settings: Any, tensors: Mapping[str, Tensor]) -> tuple[nn.Module, AttributeHead | None]:
    """The network of `settings` with `tensors` in it, and its attribute head where the tensors have one; on the CPU.

    Raises `InputError` where its features are not 2048 wide, and `DamagedFileError` where the tensors are not the network's.
    """
    from detectron2.modeling import build_model

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            model: Any = build_model(settings)
    except Exception as error:  # whatever the library, and torch below it, raise over such settings
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"detectron2 cannot build the config's network: {reason}", "Check the config.") from error
    width = model.roi_heads.box_predictor.cls_score.in_features
    if width != FEATURE_SIZE:
        raise InputError(
            f"this config's box head gives features of {width} numbers, a data set holds {FEATURE_SIZE}",
            "Use a C4 config (res5 gives 2048), or an FPN model that was trained with ROI_BOX_HEAD.FC_DIM 2048.",
        )
    if settings.MODEL.CAFFE_MAXPOOL:
        body = getattr(model.backbone, "bottom_up", model.backbone)
        body.stem = _CaffeStem(body.stem)
    if not settings.MODEL.ROI_BOX_HEAD.RES5HALVE:
        _widen(model.roi_heads.res5)
    mine = dict(tensors)
    attributes = take_attribute_head(mine, features=width, classes=settings.MODEL.ROI_HEADS.NUM_CLASSES)
    wants = settings.MODEL.ATTRIBUTE_ON or settings.MODEL.BUA.ATTRIBUTE_ON or settings.MODEL.ROI_BOX_HEAD.ATTR
    if wants and attributes is None:
        raise DamagedFileError("the config has attributes, the weights have none", "Give both of one model.")
    _fill(model, {name: value for name, value in mine.items() if not name.startswith(_UNUSED)})
    return model.eval().requires_grad_(False), attributes


def run(model: Any, pixels: Tensor) -> Found:
    """Pixels float32 [3, H, W], 0..255 in the channel order of the config -> what the network says of them."""
    # 1. Features of the image, and boxes that may hold a thing.
    images = model.preprocess_image([{"image": pixels}])
    maps = model.backbone(images.tensor)
    proposals, _ = model.proposal_generator(images, maps, None)

    # 2. A vector for each, classes, and steps to better boxes.
    heads = model.roi_heads
    boxes = [found.proposal_boxes for found in proposals]
    if hasattr(heads, "res5"):
        pooled = heads.pooler([maps[name] for name in heads.in_features], boxes)
        vectors = heads.res5(pooled).mean(dim=[2, 3])
    else:
        vectors = heads.box_head(heads.box_pooler([maps[name] for name in heads.box_in_features], boxes))
    logits, steps = heads.box_predictor(vectors)

    # 3. In fp32 whatever the rest was in.
    predictions = (logits.float(), steps.float())
    (found_boxes,) = heads.box_predictor.predict_boxes(predictions, proposals)
    (probabilities,) = heads.box_predictor.predict_probs(predictions, proposals)
    return Found(vectors.float(), found_boxes, probabilities)


def _value(settings: Any, name: str) -> Any:
    for part in name.split("."):
        settings = settings[part]
    return settings


def _add(settings: Any, name: str, value: Any, node: Any) -> None:
    *folders, last = name.split(".")
    for folder in folders:
        if folder not in settings:
            settings[folder] = node()
        settings = settings[folder]
    if last not in settings:
        settings[last] = value


class _CaffeStem(nn.Module):
    """detectron2's stem with Caffe's pooling: no border, and a last window that may hang over."""

    def __init__(self, stem: Any) -> None:
        super().__init__()
        self.conv1, self.stride, self.out_channels = stem.conv1, stem.stride, stem.out_channels

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 64, about H / 4, about W / 4]."""
        return F.max_pool2d(F.relu_(self.conv1(pixels)), kernel_size=3, stride=2, padding=0, ceil_mode=True)


def _widen(res5: Any) -> None:
    """Caffe's res5 keeps the crop's size: no stride, and dilated kernels instead."""
    for convolution in (res5[0].conv1, res5[0].conv2, res5[0].shortcut):
        convolution.stride = (1, 1)
    for block in res5:
        block.conv2.padding = block.conv2.dilation = (2, 2)


def _fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    try:
        missing, unexpected = model.load_state_dict(dict(tensors), strict=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise DamagedFileError(f"the weights do not fit the config: {reason}", "Give both of one model.") from error
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    for what, names in (("lack", missing), ("have, unexpectedly,", unexpected)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise DamagedFileError(f"the weights {what} {names[0]!r}{more}", "Give config and weights of one model.")
