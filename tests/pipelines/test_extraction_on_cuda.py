"""A whole extraction whose detector computes on a CUDA device, in every thread that takes part, on a pretended one."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from mvptr_data.dataset.receipts import read_receipt
from mvptr_data.detectors import Detector
from mvptr_data.storage import Store
from pipelines.cluster import ClusterOptions
from pipelines.detector_runner import DetectorChoice
from pipelines.extract_regions import extract_regions
from tests.conftest import PER_SHARD, PICTURES, World
from tests.mvptr_data.detectors.vinvl.small import small_detector
from tests.pretend_cuda import pretend_cuda


def narrow(folder: str, device: str, batch_size: int) -> Detector:
    """A detector of one's own: the narrow network on a device."""
    return small_detector(Path(folder), device=device, batch_size=batch_size, proposals=20)


def extract(world: World, out: Path, folder: Path, device: str, batch_size: int) -> dict[str, bytes]:
    """Extract the world's images with `narrow`; the members of all samples, by name."""
    choice = DetectorChoice(
        name=f"{__name__}:narrow", options=(("batch_size", batch_size), ("device", device), ("folder", str(folder)))
    )
    summary = extract_regions(
        str(world.images),
        str(out),
        samples_per_shard=PER_SHARD,
        detector=choice,
        decode_threads=2,
        cluster=ClusterOptions(cluster="inline"),
        quiet=True,
    )
    assert summary.counts == {"inputs": PICTURES, "ok": PICTURES}
    found = {}
    for path in sorted(out.glob("regions/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                data = tar.extractfile(member)
                assert data is not None
                found[member.name] = data.read()
    return found


def test_a_device_that_is_too_small_loses_no_image_and_says_so(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mvptr_data.detectors.vinvl.pixels.SHORT_SIDE", 200)
    expected = extract(world, tmp_path / "host", tmp_path, "cpu", 1)
    with pretend_cuda() as device:
        extract(world, tmp_path / "single", tmp_path, "cuda", 1)
        assert device.waits
        enough = device.peak
    with pretend_cuda(capacity=enough):
        found = extract(world, tmp_path / "device", tmp_path, "cuda", 4)
    assert found.keys() == expected.keys()
    features = [name for name in found if name.endswith(".npy") and "features" in name]
    assert len(features) == PICTURES
    for name in features:
        there, here = (np.load(io.BytesIO(members[name])).astype(np.float32) for members in (found, expected))
        assert np.allclose(there, here, rtol=1e-2, atol=1e-2)
    receipts = [read_receipt(Store(str(tmp_path / "device")), "regions", shard) for shard in range(3)]
    assert [receipt and receipt.environment["memory"] for receipt in receipts] == [
        "out of memory with 4 images at once -> 1"
    ] * 3
