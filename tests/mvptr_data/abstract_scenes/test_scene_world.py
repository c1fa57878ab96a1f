"""Worlds on disk: the same bytes each time, the truth read back as it was, and clear errors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image

from mvptr_data.abstract_scenes import draw_scene, generate_scene, read_truth, scene_key, write_world
from mvptr_data.errors import DamagedFileError, FormatVersionError, InputError

COUNT, SEED = 7, 12


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_world(folder, COUNT, SEED)
    return folder


def test_the_same_world_has_the_same_bytes(drawn: Path, tmp_path: Path) -> None:
    write_world(tmp_path, COUNT, SEED)
    assert _digests(tmp_path) == _digests(drawn)
    write_world(tmp_path, COUNT, SEED)
    assert _digests(tmp_path) == _digests(drawn)
    images = {f"images/{scene_key(index)}.jpg" for index in range(COUNT)}
    assert set(_digests(drawn)) == images | {"captions.jsonl", "truth.jsonl"}


def test_a_larger_world_starts_with_the_smaller_one(drawn: Path, tmp_path: Path) -> None:
    write_world(tmp_path, COUNT + 2, SEED)
    assert (tmp_path / "captions.jsonl").read_bytes().startswith((drawn / "captions.jsonl").read_bytes())
    name = f"images/{scene_key(COUNT - 1)}.jpg"
    assert (tmp_path / name).read_bytes() == (drawn / name).read_bytes()


def test_truth_is_read_back_as_it_was(drawn: Path) -> None:
    assert read_truth(drawn / "truth.jsonl") == {scene_key(i): generate_scene(SEED, i) for i in range(COUNT)}


def test_captions_are_the_truths(drawn: Path) -> None:
    lines = [json.loads(line) for line in (drawn / "captions.jsonl").read_text("utf-8").splitlines()]
    expected = [
        {"image": f"{key}.jpg", "captions": [caption.text for caption in scene.captions]}
        for key, scene in read_truth(drawn / "truth.jsonl").items()
    ]
    assert lines == expected


def test_pictures_are_full_color_jpegs(drawn: Path) -> None:
    with Image.open(drawn / "images" / f"{scene_key(0)}.jpg") as image:
        assert image.format == "JPEG"
        assert image.size == (256, 256)
        assert {component[1:3] for component in image.layer} == {(1, 1)}  # 4:4:4: no component is subsampled
        difference = [
            abs(a - b) for a, b in zip(image.tobytes(), draw_scene(generate_scene(SEED, 0)).tobytes(), strict=True)
        ]
    assert sum(difference) / len(difference) < 2


def test_strangers_in_the_directory_are_refused(tmp_path: Path) -> None:
    write_world(tmp_path, 3, SEED)
    with pytest.raises(InputError, match=r"images/000002\.jpg"):
        write_world(tmp_path, 2, SEED)


@pytest.mark.parametrize(("count", "seed"), [(0, 1), (-3, 1), (1, -1)])
def test_impossible_worlds_are_refused(tmp_path: Path, count: int, seed: int) -> None:
    with pytest.raises(InputError, match="cannot draw"):
        write_world(tmp_path, count, seed)
    assert not list(tmp_path.iterdir())


def test_a_missing_truth_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"truth\.jsonl"):
        read_truth(tmp_path / "truth.jsonl")


def test_another_version_is_named(drawn: Path, tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    path.write_text((drawn / "truth.jsonl").read_text().replace('"version":1', '"version":99', 1))
    with pytest.raises(FormatVersionError, match="99"):
        read_truth(path)


@pytest.mark.parametrize("damage", ["torn", "short", "not json", "no key", "empty"])
def test_a_damaged_truth_is_named_by_line(drawn: Path, tmp_path: Path, damage: str) -> None:
    lines = (drawn / "truth.jsonl").read_text().splitlines()
    path = tmp_path / "truth.jsonl"
    damaged = {
        "torn": "\n".join([*lines[:3], lines[3][:40]]),
        "short": "\n".join(lines[:-1]),
        "not json": "\n".join([*lines[:3], "{", *lines[4:]]),
        "no key": "\n".join([*lines[:3], "{}", *lines[4:]]),
        "empty": "",
    }
    path.write_text(damaged[damage])
    match = {"short": f"{COUNT - 1} scenes of {COUNT}", "empty": "0 scenes"}.get(damage, "line 4")
    with pytest.raises(DamagedFileError, match=match):
        read_truth(path)
