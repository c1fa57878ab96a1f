"""How many floating-point operations a step takes, and how many a device can do.

Products of matrices alone, 2 a multiplication with its addition; what is done element by element is left out, as is usual. The
way back takes twice the way there: a gradient for each of the two factors.

Shape legend: n pairs, N pairs of all ranks, Q of M places asked for, D size of a state, m masked places, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mvptr_model.batch import Batch
from mvptr_model.configuration import FIRST_STAGE_LOSSES, ModelConfiguration
from mvptr_model.masking import IGNORED

#: Forward once, backward twice.
_BOTH_WAYS = 3
#: Dense bf16 or fp16 with tensor cores, from the makers' data sheets; a name's first part that is found counts.
_PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "V100": 125e12,
}


def peak_flops(device: torch.device) -> float | None:
    """Floating-point operations a second at most, in half precision; None for a device that is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAKS.items() if part in name), None)


def batch_flops(configuration: ModelConfiguration, batch: Batch, *, stage: int, ranks: int = 1) -> float:
    """Forward and backward for a batch of one of `ranks`, padded or packed (padding costs nothing). Ask before it is on a
    device, which would have to be waited for. Mismatched pairs count as the matched ones, whose sequences they are of."""
    return _Count(configuration, batch, stage, ranks).total()


@dataclass(frozen=True, slots=True)
class _Count:
    configuration: ModelConfiguration
    batch: Batch
    stage: int
    ranks: int

    def total(self) -> float:
        size, pairs = self.configuration.hidden_size, len(self.batch)
        learns = self.configuration.learns(self.stage)
        # Features need no gradient.
        found = 2 / 3 * _product(int(self.batch.region_counts.sum()), self.configuration.region_size, size)
        if not self.configuration.merged_attention:
            found += self._apart()
        if "vsc" in self.configuration.losses:
            found += 2 * _product(pairs, size, size)
        if "vsc" in learns:
            found += 2 * _product(pairs, size, self._peers())
        if self.configuration.merged_attention or self._meets():
            found += self._together()
        for loss, labels, candidates in (
            ("mcr_v", self.batch.tag_labels, self.configuration.word_rows),
            ("mcr_s", self.batch.phrase_labels, self.configuration.phrase_rows),
            ("mlm", self.batch.word_labels, self.configuration.word_rows),
        ):
            if loss in learns:
                masked = _count(labels)
                found += _product(masked, size, size) + _product(masked, size, candidates)
        return _BOTH_WAYS * found

    def _apart(self) -> float:
        """Each modality's encoder."""
        learns = self.configuration.learns(self.stage)
        text, tags, regions = self._text(), self._tags(), self.batch.region_counts
        pairs = len(self.batch)
        phrases = _count(self.batch.phrase_labels) if "mcr_s" in learns else 0
        masked = _count(self.batch.tag_labels) if "mcr_v" in learns else 0
        text_asked, image_asked = (pairs + phrases) / int(text.sum()), pairs + masked
        if self._meets():
            text_asked, image_asked = 1.0, image_asked + int(regions.sum())
        layers = self.configuration.layers
        return self._stack(text, layers, text_asked) + self._stack(
            tags + regions, layers, image_asked / int((tags + regions).sum())
        )

    def _together(self) -> float:
        """The multi-modal encoder, ITM and WPG."""
        learns, configuration, pairs = self.configuration.learns(self.stage), self.configuration, len(self.batch)
        size, layers, halfway = configuration.hidden_size, configuration.joint_layers, configuration.grounding_layer
        tags = self._tags() if configuration.merged_attention else torch.zeros_like(self._tags())
        joint = self._text() + tags + self.batch.region_counts
        shared = "wpg" in learns and configuration.wpg_negatives == "itm"
        times = 2 if "itm" in learns or shared else 1
        looked_at = {"mlm": self.batch.word_labels}
        if configuration.merged_attention:
            looked_at |= {"mcr_s": self.batch.phrase_labels, "mcr_v": self.batch.tag_labels}
        asked = times * pairs + sum(_count(labels) for loss, labels in looked_at.items() if loss in learns)
        everywhere = "wpg" in learns and halfway == layers - 1
        share = 1.0 if everywhere else asked / (times * int(joint.sum()))
        found = times * self._stack(joint, layers, share)
        if "itm" in learns:
            found += _product(times * pairs, size, size) + _product(times * pairs, size, 2)
        if "wpg" in learns:
            found += 2 * _product(1, size, int((self._phrases() * self.batch.region_counts).sum()))
            if not shared:
                found += self._stack(joint, halfway + 1, 1.0)
        return found

    def _stack(self, lengths: Tensor, layers: int, share: float) -> float:
        """Forward through so many layers; of the last one, a `share` of the places is asked for."""
        places, squares = int(lengths.sum()), int(lengths.square().sum())
        size, wide = self.configuration.hidden_size, self.configuration.feed_forward_size

        def layer(asked: float) -> float:
            products = 2 * _product(places, size, size)  # keys and values
            products += asked * (2 * _product(places, size, size) + 2 * _product(places, size, wide))
            return products + asked * 2 * _product(squares, size, 1)  # similarities, and what is seen

        return (layers - 1) * layer(1.0) + layer(share)

    def _meets(self) -> bool:
        return bool(self.configuration.learns(self.stage).difference(FIRST_STAGE_LOSSES))

    def _peers(self) -> int:
        return len(self.batch) * (self.ranks if self.configuration.negatives == "global" else 1)

    def _text(self) -> Tensor:
        return self.batch.text_lengths - (0 if "c" in self.configuration.inputs else self.batch.phrase_counts)

    def _phrases(self) -> Tensor:
        return self.batch.phrase_counts

    def _tags(self) -> Tensor:
        return (
            self.batch.tag_lengths if "t" in self.configuration.inputs else torch.full_like(self.batch.tag_lengths, 2)
        )


def _product(rows: float, inner: float, columns: float) -> float:
    """[rows, inner] times [inner, columns]."""
    return 2.0 * rows * inner * columns


def _count(labels: Tensor) -> int:
    return int((labels != IGNORED).sum())
