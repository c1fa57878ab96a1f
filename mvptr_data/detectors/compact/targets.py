"""What the network should have said: truth matched to anchors and to proposals, and the share of it that trains.

Shape shorthand: N candidates (anchors or proposals), T things of one image, S sampled candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mvptr_data.detectors.boxes import clip, pairwise_iou

#: Anchors: things from this overlap on, background below the other, unused between.
ANCHOR_THING_IOU, ANCHOR_BACKGROUND_IOU = 0.5, 0.35
#: Anchors of one image that train: at most so many things, the background ones scored highest, and random ones.
ANCHOR_THINGS, ANCHOR_HARD, ANCHOR_RANDOM = 64, 48, 80

#: Proposals: things from this overlap on, background below.
REGION_THING_IOU = 0.5
#: Proposals of one image that train, and how many of them may be things.
REGIONS, REGION_THINGS = 32, 16
#: How far jittered truth boxes are moved and stretched, as a share of their sides.
JITTER = 0.15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """The things of one image; T >= 1."""

    boxes: Tensor  # float32 [T, 4], pixels of the network's input
    kinds: Tensor  # int64 [T], from 1
    colors: Tensor  # int64 [T], from 0
    sizes: Tensor  # int64 [T], from 0


def _some(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """At most `count` of the indices `candidates`, drawn without replacement."""
    return candidates[torch.randperm(len(candidates), generator=generator)[:count]]


def match_anchors(anchors: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """[N, 4], [T, 4] -> each anchor's nearest thing [N], and whether it is that thing (1), background (0) or unused (-1).

    A thing's best anchor is its own whatever the overlap, so that every thing has one.
    """
    overlaps = pairwise_iou(anchors, truth)  # [N, T]
    best, nearest = overlaps.max(dim=1)
    roles = torch.full_like(nearest, -1)
    roles[best < ANCHOR_BACKGROUND_IOU] = 0
    roles[best >= ANCHOR_THING_IOU] = 1
    own = overlaps.argmax(dim=0)  # [T]
    roles[own] = 1
    nearest[own] = torch.arange(len(truth))
    return nearest, roles


def sample_anchors(roles: Tensor, objectness: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Roles [N], logits [N] -> indices of the thing anchors and of the background anchors that train."""
    things = _some((roles == 1).nonzero().flatten(), ANCHOR_THINGS, generator)
    background = (roles == 0).nonzero().flatten()
    by_score = background[objectness[background].argsort(descending=True)]
    chosen = [by_score[:ANCHOR_HARD], _some(by_score[ANCHOR_HARD:], ANCHOR_RANDOM, generator)]
    return things, torch.cat(chosen)


def jittered(boxes: Tensor, *, width: int, height: int, generator: torch.Generator) -> Tensor:
    """[T, 4] -> [T, 4]: every side moved by a random share of the box's extent."""
    extents = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return clip(boxes + extents * JITTER * torch.randn(boxes.shape, generator=generator), width, height)


def sample_regions(
    proposals: Tensor, truth: Truth, *, width: int, height: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Proposals [P, 4] of one image -> boxes [S, 4] that train, their things [S], and their labels [S] (0: background).

    Truth and jittered truth join the proposals, so that early training, whose proposals are poor, sees things too.
    """
    noisy = jittered(truth.boxes, width=width, height=height, generator=generator)
    candidates = torch.cat([proposals, truth.boxes, noisy])
    best, nearest = pairwise_iou(candidates, truth.boxes).max(dim=1)
    things = _some((best >= REGION_THING_IOU).nonzero().flatten(), REGION_THINGS, generator)
    background = _some((best < REGION_THING_IOU).nonzero().flatten(), REGIONS - len(things), generator)
    chosen = torch.cat([things, background])
    labels = truth.kinds[nearest[chosen]].clone()
    labels[len(things) :] = 0
    return candidates[chosen], nearest[chosen], labels
