"""Estimates on drawn pictures, whose faults and sizes are known, with the bundled detector."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.errors import InputError
from mvptr_data.sources.images import ImageRef, list_images
from pipelines.cli import main
from pipelines.cluster import ClusterOptions
from pipelines.estimate import DEVICES, draw, estimate_extraction, proportion
from pipelines.estimate_report import render_estimate
from pipelines.extract_regions import extract_regions


def refs(count: int) -> list[ImageRef]:
    names = dict.fromkeys(ImageRef.__dataclass_fields__)
    return [ImageRef(**names | {"key": f"{number:04d}"}) for number in range(count)]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pictures(world, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    """Twelve files: nine pictures, two empty ones, one that is text."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, picture in enumerate(sorted(world.images.glob("*.jpg"))[:9]):
        shutil.copy(picture, folder / f"{number}.jpg")
    for name in ("a", "b"):
        (folder / f"{name}.jpg").write_bytes(b"")
    (folder / "c.jpg").write_text("<html>404</html>")
    return folder


def test_with_everything_in_the_sample_the_estimate_is_what_the_run_then_is(pictures: Path, tmp_path: Path) -> None:
    found = estimate_extraction(str(pictures), samples_per_shard=5, decode_threads=1, quiet=True)
    extract_regions(
        str(pictures), str(tmp_path / "out"), samples_per_shard=12, cluster=ClusterOptions(cluster="inline"), quiet=True
    )
    assert (found.images, found.sampled, found.ok, found.shards) == (12, 12, 9, 3)
    assert {name: (fault.expected, fault.low, fault.high) for name, fault in found.faults.items()} == {
        "empty_file": (2, 2, 2),
        "not_an_image": (1, 1, 1),
    }
    assert found.unseen_faults == 0
    files = [*(tmp_path / "out" / "regions").glob("*.tar"), *(tmp_path / "out" / "regions").glob("*.parquet")]
    written = sum(file.stat().st_size for file in files)
    assert found.storage_bytes.expected == pytest.approx(written, rel=0.01)
    assert found.storage_bytes.low == found.storage_bytes.high == found.storage_bytes.expected
    assert found.bound == "detect"
    assert 0 < found.seconds["detect"] <= found.seconds["total"] < 60
    # Three shards of 5, 5 and 2: one device does all, eight and sixty-four are as fast as the longest shard.
    assert found.hours[1] == pytest.approx(12 * found.seconds["total"] / 3600)
    assert found.hours[8] == found.hours[64] == pytest.approx(5 * found.seconds["total"] / 3600)
    assert found.memory_mb > 100 and found.device_memory_mb is None


def test_a_count_scales_and_says_what_was_not_looked_at(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.estimate.BEGINNING", 2)
    found = estimate_extraction(str(pictures), sample=4, count=1_000_000, quiet=True)
    assert (found.listed, found.sampled, found.images, found.shards) == (8, 4, 1_000_000, 1000)
    assert not found.whole_listing
    assert found.hours[1] == pytest.approx(1_000_000 * found.seconds["total"] / 3600)
    assert found.hours[64] == pytest.approx(16 * 1000 * found.seconds["total"] / 3600)
    text = render_estimate(found)
    assert "4 of the first 8 inputs listed; the rest was not looked at" in text
    assert "scaled to 1,000,000 inputs" in text and "in 1,000 shards of 1,000" in text


def test_the_command_says_it_in_words_and_as_json(pictures: Path) -> None:
    arguments = ["estimate", str(pictures), "--sample", "6", "--quiet", "--option", "score_threshold=0.4"]
    said = CliRunner().invoke(main, arguments)
    assert said.exit_code == 0, said.output
    for line in (
        "6 of 12 inputs, drawn uniformly",
        "bound by  detect: decode and write wait for it",
        "64 such workers",
    ):
        assert line in said.output
    found = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert found["sampled"] == 6 and list(map(int, found["hours"])) == list(DEVICES)
    assert found["storage_bytes"]["low"] <= found["storage_bytes"]["expected"] <= found["storage_bytes"]["high"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sample": 0}, "sample is 0"),
        ({"count": 0}, "count 0"),
        ({"count": 5}, "--count is 5, but .* has 12 inputs"),
        ({"sample": 1, "count": 9}, "--count is 9, but .* has at least 10 inputs"),
    ],
)
def test_impossible_numbers_are_refused(pictures: Path, given: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        estimate_extraction(str(pictures), quiet=True, **given)  # type: ignore[arg-type]


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        estimate_extraction(str(tmp_path / "nowhere"), quiet=True)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32))
def test_a_sample_is_in_order_without_repeats_and_the_same_for_a_seed(count: int, size: int, seed: int) -> None:
    drawn, listed = draw(refs(count), size, seed)
    assert listed == count and len(drawn) == min(count, size)
    assert [ref.key for ref in drawn] == sorted({ref.key for ref in drawn})
    assert draw(refs(count), size, seed)[0] == drawn


def test_every_input_is_drawn_equally_often() -> None:
    every = refs(6)
    times = Counter(tuple(ref.key for ref in draw(every, 2, seed)[0]) for seed in range(6000))
    pairs = {tuple(ref.key for ref in pair) for pair in itertools.combinations(every, 2)}
    assert set(times) == pairs
    # 15 pairs, 400 each on the average, standard deviation 19.3.
    assert all(abs(count - 400) < 5 * 19.3 for count in times.values())


def test_intervals_of_faults_hold_the_known_values() -> None:
    """Wilson's interval as tabulated by Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    table = (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    )
    for hits, sampled, low, high in table:
        found = proportion(hits, sampled, 10**9)
        assert (found.low / 10**9, found.high / 10**9) == pytest.approx((low, high), abs=1e-4)
        assert found.expected == pytest.approx(10**9 * hits / sampled)
    assert proportion(3, 10, 10).low == proportion(3, 10, 10).high == 3


@given(st.integers(1, 200), st.integers(0, 200), st.integers(0, 1000))
def test_an_interval_never_contradicts_the_sample(sampled: int, hits: int, more: int) -> None:
    hits, population = min(hits, sampled), sampled + more
    found = proportion(hits, sampled, population)
    assert hits <= found.low <= found.high <= population - (sampled - hits)


def test_the_listing_is_the_one_that_extraction_uses(pictures: Path) -> None:
    drawn, listed = draw(list_images(str(pictures)), 100, 0)
    assert [ref.key for ref in drawn] == [ref.key for ref in list_images(str(pictures))] and listed == 12
