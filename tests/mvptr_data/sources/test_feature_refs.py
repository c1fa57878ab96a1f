from __future__ import annotations

import base64
import json
from pathlib import Path
from random import Random

import numpy as np
import pytest

from mvptr_data.errors import InputError
from mvptr_data.sources.feature_refs import (
    FeatureSource,
    LineTable,
    find_form,
    list_features,
    read_regions,
    read_sizes,
)
from mvptr_data.sources.tsv_lines import list_lines

WIDTH, HEIGHT = 200, 100


def features_line(name: str, number: int, count: int = 2) -> str:
    """`count` regions whose first number tells the image; the second box is the right half."""
    array = np.zeros((count, 2054), np.float32)
    array[:, 0] = number
    array[:, 2048:] = [0.5, 0, 1, 1, 0.5, 1]
    return f"{name}\t{count}\t{base64.b64encode(array.tobytes()).decode()}\n"


def predictions_line(name: str, tag: str, count: int = 2) -> str:
    objects = [{"class": tag, "conf": 0.5, "rect": [100, 0, 200, 100]}] * count
    return f"{name}\t{json.dumps({'image_h': HEIGHT, 'image_w': WIDTH, 'objects': objects})}\n"


@pytest.fixture
def files(tmp_path: Path) -> FeatureSource:
    """Six images; predictions in another order, one repeated, one without an id, one image without."""
    names = [f"im/{number}.jpg" for number in range(6)]
    (tmp_path / "features.tsv").write_text("".join(features_line(name, number) for number, name in enumerate(names)))
    lines = [predictions_line(name, f"tag{number}") for number, name in enumerate(names) if number != 4]
    Random(1).shuffle(lines)
    (tmp_path / "predictions.tsv").write_text("".join([*lines, predictions_line(names[0], "second"), "no tab\n"]))
    return FeatureSource(
        features=str(tmp_path / "features.tsv"), form="features", predictions=str(tmp_path / "predictions.tsv")
    )


def test_lines_meet_by_id_whatever_their_order(files: FeatureSource) -> None:
    assert files.predictions is not None
    table = LineTable(list_lines(files.predictions))
    assert (len(table), table.repeated, table.faulty) == (5, 1, 1)
    refs = list(list_features(files, table, split="val"))
    assert [ref.key for ref in refs] == [
        f"im/{number}" for number in range(6)
    ]  # keys of captions have no suffix either
    assert {ref.split for ref in refs} == {"val"}
    for number, ref in enumerate(refs):
        if number == 4:
            assert ref.fault == "missing_file" and "'im/4'" in (ref.message or "")
            continue
        regions = read_regions(files, ref)
        assert regions.tags == (f"tag{number}",) * 2 and regions.features[:, 0].tolist() == [number] * 2
        assert (regions.width, regions.height) == (WIDTH, HEIGHT)


def test_bad_lines_have_a_name(tmp_path: Path) -> None:
    path = tmp_path / "f.tsv"
    path.write_bytes(features_line("a", 1).encode() + b"no tab\n\n" + b"../up\t0\t\n" + b"\xff\t0\t\n" + b"b\t0\t")
    refs = list(list_features(FeatureSource(features=str(path), form="features")))
    assert [(ref.key, ref.fault) for ref in refs] == [
        ("a", None),
        ("f.tsv#2", "broken_record"),
        ("../up", "unsafe_key"),
        ("f.tsv#5", "broken_record"),
        ("b", None),
    ]
    assert "line 2: there is no tab" in (refs[1].message or "")


def test_sizes_come_from_a_file_of_their_own(tmp_path: Path) -> None:
    features, sizes = tmp_path / "f.tsv", tmp_path / "hw.tsv"
    features.write_text("".join(features_line(name, 0) for name in "abcd"))
    sizes.write_text(
        'a\t[{"height": 100, "width": 200}]\r\n\nb\t{"height": 100, "width": 200}\nc.jpg\t100 200\na\t[{"height": 1, "width": 1}]'
    )
    assert read_sizes(str(sizes)) == dict.fromkeys("abc", (200, 100))
    source = FeatureSource(features=str(features), form="features", sizes=str(sizes), default_tag="object")
    found = [read_regions(source, ref) for ref in list_features(source)]
    assert [(one.width, one.height) for one in found] == [(200, 100)] * 3 + [(None, None)]
    assert found[0].boxes.tolist() == [[100, 0, 200, 100]] * 2 and found[3].boxes.tolist() == [[0.5, 0, 1, 1]] * 2


@pytest.mark.parametrize(
    "line", ["a", "a\t[]", "a\t12", "a\t[{}]", "a\t0 5", "a\t{", 'a\t{"height": 5}', "a\t5 " + "5" * 9]
)
def test_a_file_of_sizes_says_where_it_is_wrong(tmp_path: Path, line: str) -> None:
    (tmp_path / "hw.tsv").write_text(f"ok\t1 2\n{line}\n")
    with pytest.raises(InputError, match=r"line 2 of .* says no image size"):
        read_sizes(str(tmp_path / "hw.tsv"))


def test_a_file_that_changed_ends_the_run_and_no_sample(files: FeatureSource) -> None:
    refs = list(list_features(files))
    path = Path(files.features)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9000])
    with pytest.raises(InputError, match="went on when it was listed"):
        read_regions(files, refs[-1])
    path.write_bytes(b"x" + whole)
    with pytest.raises(InputError, match=r"where 'im/0' was"):
        read_regions(files, refs[0])
    path.unlink()
    with pytest.raises(InputError, match="cannot read"):
        read_regions(files, refs[0])


def test_the_form_is_found_in_the_first_lines(files: FeatureSource, tmp_path: Path) -> None:
    assert files.predictions is not None
    assert (find_form(files.features), find_form(files.predictions)) == ("features", "predictions")
    broken = tmp_path / "broken.tsv"
    broken.write_text("no tab\nx\t{\ny\t" + '{"feature": "", "predictions": []}\n')
    assert find_form(str(broken)) == "mvptr"
    broken.write_text("a\tA caption.\n" * 50)
    with pytest.raises(InputError, match=r"none of features, predictions, mvptr"):
        find_form(str(broken))
