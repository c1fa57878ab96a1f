"""Captions from every format: what becomes a record, what a fault (and of which line), what ends the run."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvptr_data.errors import FAULT_CLASSES, InputError
from mvptr_data.sources.captions import CaptionFault, CaptionRecord, read_captions

DATA = Path(__file__).parents[4] / "shared/data"
Found = tuple[list[tuple[str, str, str]], list[tuple[int | None, str, str | None]]]


def read(paths: Path | str | list[str], caption_key: str | None = None) -> Found:
    """(key, caption id, text) of the records; (line, class, key) of the faults."""
    found = list(read_captions(paths if isinstance(paths, list) else str(paths), caption_key=caption_key))
    records = [(each.key, each.caption_id, each.text) for each in found if isinstance(each, CaptionRecord)]
    faults = [(each.line, each.fault_class, each.key) for each in found if isinstance(each, CaptionFault)]
    assert len(records) + len(faults) == len(found)
    return records, faults


def write_lines(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    data = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


COCO = {
    "images": [{"id": 7, "file_name": "000000000007.jpg"}, {"id": 8, "file_name": "train2017/8.v2.jpg"}],
    "annotations": [
        {"image_id": 8, "id": 30, "caption": "A dog."},
        {"image_id": 7, "id": 31, "caption": " Two cats \n"},
        {"image_id": 7, "caption": "No id."},
        {"image_id": 7, "caption": "Nor this."},
    ],
}
KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "val2014",
            "filename": "COCO_val2014_000000391895.jpg",
            "sentids": [770337, 771687],
            "imgid": 0,
            "split": "restval",
            "cocoid": 391895,
            "sentences": [
                {"tokens": ["a", "man"], "raw": "A man.", "imgid": 0, "sentid": 770337},
                {"tokens": ["a", "hat"], "raw": "A hat.", "imgid": 0, "sentid": 771687},
            ],
        }
    ],
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["captions.json", "captions.json.gz", "captions"])
def test_coco(tmp_path: Path, name: str, indent: int | None) -> None:
    data = json.dumps(COCO, indent=indent).encode()
    (tmp_path / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    assert read(tmp_path / name) == (
        [
            ("train2017/8.v2", "30", "A dog."),
            ("000000000007", "31", " Two cats \n"),
            ("000000000007", "000000000007#0", "No id."),
            ("000000000007", "000000000007#1", "Nor this."),
        ],
        [],
    )
    assert [key for key, _, _ in read(tmp_path / name, "id")[0]] == ["8", "7", "7", "7"]


def test_coco_faults(tmp_path: Path) -> None:
    images = [
        {"id": 1, "file_name": "a.jpg"},
        {"id": 1, "file_name": "b.jpg"},
        {"id": 2, "file_name": "../c.jpg"},
        5,
        {"id": []},
    ]
    annotations = [
        {"image_id": 1, "id": 1, "caption": "Good."},
        {"image_id": 99, "id": 2, "caption": "Unknown image."},
        {"image_id": 1, "id": 3, "caption": "  "},
        {"image_id": 1, "id": 4, "caption": None},
        {"id": 5, "caption": "No image."},
        None,
        {"image_id": 2, "id": 6, "caption": "Unsafe image."},
    ]
    (tmp_path / "c.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    found = list(read_captions(str(tmp_path / "c.json")))
    faults = [each for each in found if isinstance(each, CaptionFault)]
    assert [each.caption_id for each in found if isinstance(each, CaptionRecord)] == ["1"]
    assert [(each.message.partition(":")[0], each.fault_class, each.key) for each in faults] == [
        ("images[1]", "broken_record", None),
        ("images[2]", "unsafe_key", None),
        ("images[3]", "broken_record", None),
        ("images[4]", "broken_record", None),
        ("annotations[1]", "broken_record", None),
        ("annotations[2]", "empty_caption", "a"),
        ("annotations[3]", "broken_record", "a"),
        ("annotations[4]", "broken_record", None),
        ("annotations[5]", "broken_record", None),
        ("annotations[6]", "broken_record", None),
    ]
    assert "no usable image has the id 99" in faults[4].message
    assert {each.source for each in faults} == {f"{tmp_path}/c.json"}


def test_karpathy(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(KARPATHY))
    key = "COCO_val2014_000000391895"
    assert read(path) == ([(key, "770337", "A man."), (key, "771687", "A hat.")], [])
    assert [record.split for record in read_captions(str(path))] == ["restval"] * 2
    assert read(path, "{filepath}/{filename}")[0][0][0] == f"val2014/{key}"
    assert read(path, "cocoid")[0][0][0] == "391895"


def test_list_of_rows(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(
        json.dumps([{"image": "a/1.jpg", "caption": ["One.", "Two."]}, {"image": "b.jpg"}])
    )
    assert read(tmp_path / "x.json") == (
        [("a/1", "a/1#0", "One."), ("a/1", "a/1#1", "Two.")],
        [(None, "broken_record", "b")],
    )


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.ndjson", "x.json", "x.captions"])
def test_jsonl(tmp_path: Path, name: str) -> None:
    path = write_lines(
        tmp_path / name,
        {"id": 285, "file": "000000000285.jpg", "captions": ["A bear.", {"raw": "A nose.", "sentid": 9}]},
        b"",
        {"image": "d/x.v2.PNG", "caption": "One.", "id": 12, "split": "val"},
        {"image": "d/x.v2.PNG", "text": "Two."},
        {"image_id": 5.0, "sentences": [{"caption": "Three.", "id": "s"}, {"text": "Four."}]},
        {"image": None, "url": "https://h.org/a/1.jpg?", "caption": "Five.", "caption_id": "c"},
        {"key": "x.v2", "caption": "é \U0001f600"},
    )
    assert read(path) == (
        [
            ("000000000285", "000000000285#0", "A bear."),
            ("000000000285", "9", "A nose."),
            ("d/x.v2", "12", "One."),
            ("d/x.v2", "d/x.v2#1", "Two."),
            ("5", "s", "Three."),
            ("5", "5#1", "Four."),
            ("h.org/a/1.jpg?", "c", "Five."),
            ("x.v2", "x.v2#0", "é \U0001f600"),
        ],
        [],
    )
    assert [each.split for each in read_captions(str(path))][2] == "val"


def test_bad_lines_are_faults_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = {"image": "a.jpg", "caption": "Good."}
    cases: list[tuple[Any, list[tuple[str, str | None]]]] = [
        (b'{"image": "a.jpg", "caption": ', [("broken_record", None)]),
        (b'{"image": "a.jpg", "caption": "\xff"}', [("broken_record", None)]),
        (b"[" * 100_000, [("broken_record", None)]),
        (b"1" * 5_000, [("broken_record", None)]),
        ([1], [("broken_record", None)]),
        ({"caption": "No key."}, [("broken_record", None)]),
        ({"image": {"path": "a.jpg"}, "caption": "x"}, [("broken_record", None)]),
        ({"image": True, "caption": "x"}, [("broken_record", None)]),
        ({"image": 1.5, "caption": "x"}, [("broken_record", None)]),
        ({"image": "\ud800.jpg", "caption": "x"}, [("broken_record", None)]),
        ({"image": "../a.jpg", "caption": "x"}, [("unsafe_key", None)]),
        ({"image": "/a.jpg", "caption": "x"}, [("unsafe_key", None)]),
        ({"image": "", "caption": "x"}, [("unsafe_key", None)]),
        ({"image": "b.jpg"}, [("broken_record", "b")]),
        ({"image": "b.jpg", "caption": 3}, [("broken_record", "b")]),
        ({"image": "b.jpg", "captions": []}, [("no_captions", "b")]),
        (
            {"image": "b.jpg", "captions": ["", 3, {"raw": None}]},
            [("empty_caption", "b"), *[("broken_record", "b")] * 2],
        ),
        ({"image": "b.jpg", "caption": " \t\n"}, [("empty_caption", "b")]),
        ({"image": "b.jpg", "caption": "half \ud83d"}, [("broken_record", "b")]),
        ({"image": "b.jpg", "caption": "x", "split": 3}, [("broken_record", "b")]),
        ({"image": "b.jpg", "caption": "x", "id": [1]}, [("broken_record", "b")]),
    ]
    path = write_lines(tmp_path / "x.jsonl", *(row for case, _ in cases for row in (good, case)), good)
    records, faults = read(path)
    assert [text for _, _, text in records] == ["Good."] * (len(cases) + 1)
    assert faults == [(2 * number + 2, *fault) for number, (_, found) in enumerate(cases) for fault in found]
    for fault in read_captions(str(path)):
        if isinstance(fault, CaptionFault):
            fault.message.encode()
            assert fault.source == str(path) and fault.fault_class in FAULT_CLASSES


def test_numbering_counts_adjacent_captions_of_one_key(tmp_path: Path) -> None:
    rows = [
        {"image": image, "caption": "x" if image != "c.jpg" else " "}
        for image in ("a.jpg", "a.png", "b.jpg", "c.jpg", "c.jpg")
    ]
    path = write_lines(tmp_path / "x.jsonl", *rows, {"image": "c", "caption": "y"})
    assert [caption_id for _, caption_id, _ in read(path)[0]] == ["a#0", "a#1", "b#0", "c#2"]


def test_torn_gzip_keeps_the_rows_before(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "x.jsonl.gz", *({"key": f"{n * n:09}", "caption": f"Picture {n**5}."} for n in range(20_000))
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    records, faults = read(path)
    assert 5_000 < len(records) < 15_000
    assert [key for key, _, _ in records] == [f"{n * n:09}" for n in range(len(records))]
    assert faults == [(len(records) + 1, "torn_archive", None)]
    damaged = bytearray(whole)
    damaged[-6] ^= 1  # the checksum
    path.write_bytes(damaged)
    records, faults = read(path)
    assert (len(records), faults) == (20_000, [(20_001, "torn_archive", None)])


def test_tsv_with_a_header(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(
        b"\xef\xbb\xbf\nSplit\tFile\tCaption\tmine\r\nval\ta.jpg\tA dog.\tk1\r\n\tb.jpg\t\tk2\r\nc.jpg\r\nval\td.jpg\t\xff\tk\r\n"
    )
    records, faults = read(path)
    assert records == [("a", "a#0", "A dog.")]
    assert faults == [(4, "empty_caption", "b"), (5, "broken_record", None), (6, "broken_record", None)]
    assert next(read_captions(str(path))).split == "val"  # type: ignore[union-attr]
    assert read(path, "mine")[0] == [("k1", "k1#0", "A dog.")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.jpg\tA dog.\nb\tA cat.\n", [("a", "a#0"), ("b", "b#0")]),
        ("1.jpg#0\tA dog.\n1.jpg#1\tA cat.\n", [("1", "1#0"), ("1", "1#1")]),
        ("A dog.\thttp://h.org/1.jpg\nA cat.\thttp://h.org/2\n", [("h.org/1", "h.org/1#0"), ("h.org/2", "h.org/2#0")]),
        ("http://h.org/1.jpg\tA dog.\nhttp://h.org/2\tA cat.\n", [("h.org/1", "h.org/1#0"), ("h.org/2", "h.org/2#0")]),
    ],
)
@pytest.mark.parametrize("name", ["x.tsv", "x.tsv.gz", "x.token"])
def test_tsv_without_a_header(tmp_path: Path, name: str, text: str, expected: list[tuple[str, str]]) -> None:
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    (first, second), faults = read(tmp_path / name)
    assert [first[:2], second[:2]] == expected and [first[2], second[2]] == ["A dog.", "A cat."] and not faults


def test_tsv_faults_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text('one cell\na.jpg\tA dog.\nb.jpg\tx\ty\n\tno key\n\nc.jpg\tA "cat".\n')
    records, faults = read(tmp_path / "x.tsv")
    assert [text for _, _, text in records] == ["A dog.", 'A "cat".']
    assert faults == [(1, "broken_record", None), (3, "broken_record", None), (4, "broken_record", None)]
    with pytest.raises(InputError, match="no header that names mine"):
        read(tmp_path / "x.tsv", "mine")


def test_parquet(tmp_path: Path) -> None:
    rows = [
        {"image": {"bytes": b"x"}, "file_name": "a/1.jpg", "captions": ["One.", "Two."], "split": "train", "n": 1},
        {"image": None, "file_name": "b.jpg", "captions": [], "split": None, "n": 2},
        {"image": None, "file_name": None, "captions": ["x"], "split": None, "n": 3},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    found = list(read_captions(str(tmp_path / "x.parquet")))
    assert [(each.key, each.caption_id, each.split) for each in found if isinstance(each, CaptionRecord)] == [
        ("a/1", "a/1#0", "train"),
        ("a/1", "a/1#1", "train"),
    ]
    faults = [each for each in found if isinstance(each, CaptionFault)]
    assert [(each.fault_class, each.key, each.message[:5]) for each in faults] == [
        ("no_captions", "b", "row 1"),
        ("broken_record", None, "row 2"),
    ]
    assert [key for key, _, _ in read(tmp_path / "x.parquet", "{file_name}-{n}")[0]] == ["a/1.jpg-1"] * 2
    with pytest.raises(InputError, match=r"lacks a column for image keys \(other\).*it has image, file_name"):
        read(tmp_path / "x.parquet", "other")


def test_parquet_damage(tmp_path: Path) -> None:
    table = pa.table({"key": [f"{n:06}" for n in range(30_000)], "caption": [f"Picture {n}." for n in range(30_000)]})
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, row_group_size=10_000, compression="none")
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    data[start : start + 64] = b"\xff" * 64
    path.write_bytes(data)
    records, faults = read(path)
    assert [key for key, _, _ in records] == [f"{n:06}" for n in range(len(records))] and 4_096 <= len(
        records
    ) <= 10_000
    assert faults == [(None, "torn_archive", None)]
    path.write_bytes(data[:-9])
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read(path)


def test_parquet_texts_that_are_not_utf8(tmp_path: Path) -> None:
    texts = pa.array([b"Good.", b"\xff", b"Fine."]).view(pa.string())
    pq.write_table(pa.table({"key": ["a", "b", "c"], "caption": texts}), tmp_path / "x.parquet")
    records, faults = read(tmp_path / "x.parquet")
    assert [text for _, _, text in records] == ["Good.", "Fine."]
    assert faults == [(None, "broken_record", None)]


def test_folders_and_several_paths(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    (folder / "deep").mkdir(parents=True)
    write_lines(folder / "b.jsonl", {"key": "b", "caption": "B."})
    write_lines(folder / "deep/a.jsonl.gz", {"key": "a", "caption": "A."})
    (folder / "00000_stats.json").write_text('{\n "count": 3\n}')
    (folder / "instances.json").write_text(json.dumps({"images": [], "annotations": [{"bbox": []}]}))
    (folder / "broken.json").write_text('{"images": [\n')
    (folder / "gone.tsv").symlink_to(folder / "nowhere")
    (folder / "notes.md").write_text("no captions")
    write_lines(tmp_path / "c.jsonl", {"key": "c", "caption": "C."})
    found = list(read_captions([str(tmp_path / "c.jsonl"), str(folder)]))
    assert [each.key for each in found if isinstance(each, CaptionRecord)] == ["c", "b", "a"]
    faults = {Path(each.source).name: each for each in found if isinstance(each, CaptionFault)}
    assert {name: each.fault_class for name, each in faults.items()} == {
        "broken.json": "broken_record",
        "gone.tsv": "missing_file",
        "instances.json": "broken_record",
    }
    assert "line 2 column 1" in faults["broken.json"].message


def test_urls() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/sources-captions/x.jsonl.gz", gzip.compress(b'{"key": "a", "caption": "A."}\n', mtime=0))
    assert (
        read("memory://sources-captions")[0] == read("memory://sources-captions/x.jsonl.gz")[0] == [("a", "a#0", "A.")]
    )


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.json", b'{"images": [\n  {"id": 1,,}\n]}', "x.json is not JSON: line 2 column 12: "),
        ("x.json", b'{"images":\n "\xff"}', r"x.json is not UTF-8: invalid start byte at byte 13 \(line 2\)"),
        ("x.json", b'{\n"annotations": []}', "no caption file that is known"),
        ("x.json", b'{"images": [],\n "annotations": [{"bbox": 1}]}', "none has a caption"),
        ("x.json", b'{"images": [], "annotations": []}', "no captions found in"),
        ("x.json.gz", gzip.compress(b'{"images": []}', mtime=0)[:12], "cannot be read: Compressed file ended"),
        ("x.jsonl", b"", "x.jsonl is empty"),
        ("x.jsonl", b"\n \n", "no captions found in"),
        (
            "x.jsonl",
            b'\n{"caption": "x"}\n{}\n',
            "2 records, none usable; the first fault: broken_record in .*/x.jsonl line 2: ",
        ),
        ("x.parquet", b"PAR1 no", "not a readable Parquet file"),
        (
            "x.tsv",
            b"\nimage_id\tsentence\n1\tA dog.\n",
            r"header \(image_id, sentence\) names an image key and no caption",
        ),
        ("x.png", b"\x89PNG\r\n\x1a\n", "neither JSON, JSONL, TSV nor Parquet"),
    ],
)
def test_unusable_files_are_one_clear_error(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        list(read_captions(str(tmp_path / name)))


def test_wrong_paths_and_caption_keys(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no caption file or folder"):
        read_captions(str(tmp_path / "nowhere.json"))
    with pytest.raises(InputError, match="no caption file is given"):
        read_captions([])
    with pytest.raises(InputError, match="no captions found"):
        list(read_captions(str(tmp_path)))
    path = write_lines(tmp_path / "x.jsonl", {"image": "a.jpg", "caption": "x"})
    for caption_key in ("", "{", "{image", "a}{image}", "{}"):
        with pytest.raises(InputError, match="no field name or template"):
            read_captions(str(path), caption_key=caption_key)
    with pytest.raises(InputError, match=r"first fault: broken_record .*'{image}/{other}' are not all there \(other\)"):
        read(path, "{image}/{other}")
    with pytest.raises(InputError, match="none usable"):
        read(path, "{image.__class__}")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["image", "id", "key", "captions", "caption", "raw", "split", "sentid"]), inner
                )
            ),
            max_leaves=8,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_json_gives_records_that_can_be_stored(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    path = write_lines(tmp_path_factory.mktemp("any") / "x.jsonl", *rows)
    lines = set()
    try:
        for each in read_captions(str(path)):
            texts = (
                (each.key, each.split, each.caption_id, each.text)
                if isinstance(each, CaptionRecord)
                else (each.key, each.message)
            )
            assert all(text is None or text.encode() is not None for text in texts)
            if isinstance(each, CaptionRecord):
                assert each.key and each.text.strip()
            else:
                lines.add(each.line)
    except InputError as error:
        assert "none usable" in str(error) and lines == set(range(1, len(rows) + 1))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the caption files of ../shared/data")
def test_real_files() -> None:
    for name, texts, images in (
        ("captions/captions_val2017.json", 25_014, 5_000),
        ("captions/flickr30k_train.jsonl.gz", 145_000, 29_000),
        ("photos/photos.jsonl", 320, 64),
    ):
        records, faults = read(DATA / name)
        assert (len(records), len({key for key, _, _ in records}), faults) == (texts, images, [])
        assert len({caption_id for _, caption_id, _ in records}) == texts
    assert records[0][0] == "000000000285"
