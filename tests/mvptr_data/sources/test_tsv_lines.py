from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.errors import InputError
from mvptr_data.sources import tsv_lines
from mvptr_data.sources.tsv_lines import TsvLine, check_tsv, list_lines, read_line, stored_offsets

#: What stands in a line, short and long against the block that is read at once in these tests.
BODIES = st.binary(max_size=40).map(lambda body: body.replace(b"\n", b"-").replace(b"\r", b"-"))
IDS = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\ufeff"), min_size=1, max_size=8)
LINES = st.lists(st.one_of(st.just(b""), st.just(b"  "), st.tuples(IDS, BODIES)), max_size=12)


def written(path: Path, lines: list[object], end: bytes, closed: bool) -> tuple[list[int], list[tuple[str, bytes]]]:
    """Write lines; the offset of each, and the (id, whole line) of those that are not blank."""
    offsets, expected, data = [], [], b""
    for line in lines:
        offsets.append(len(data))
        if isinstance(line, tuple):
            raw = line[0].encode() + b"\t" + line[1]
            if raw.strip():
                expected.append((line[0].strip(), raw))
        else:
            raw = line
        data += raw + end
    data = data if closed or not lines else data[: len(data) - len(end)]
    path.write_bytes(data)
    return offsets, expected


@given(LINES, st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.integers(1, 64))
def test_lines_are_found_with_and_without_an_index(lines: list[object], end: bytes, closed: bool, block: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tsv_lines, "_BLOCK", block)
        path = Path(folder) / "x.tsv"
        offsets, expected = written(path, lines, end, closed)
        found = list(list_lines(str(path)))
        good = [line for line in found if line.problem is None]
        assert [(line.id, read_line(str(path), line.offset, line.size)) for line in good] == [
            (name, raw.strip(b"\r\n")) for name, raw in expected if name
        ]
        assert len(found) - len(good) == sum(not name for name, _ in expected)  # an id of nothing but spaces
        path.with_suffix(".lineidx").write_text("".join(f"{offset}\n" for offset in offsets))
        stored, problem = stored_offsets(str(path))
        if offsets and offsets[-1] < path.stat().st_size:
            assert stored is not None and problem is None
            assert list(list_lines(str(path), stored)) == found


WRONG_INDEXES = {
    "another file's": "0\n5\n9\n",
    "does not begin at 0": "8\n16\n",
    "not ascending": "0\n16\n8\n",
    "one line too few": "0\n8\n",
    "beyond the end": "0\n8\n16\n24\n99\n",
    "no numbers": "zero\neight\n",
    "empty": "",
    "huge numbers": "0\n99999999999999999999999\n",
}


@pytest.mark.parametrize("name", WRONG_INDEXES)
def test_an_index_that_is_not_this_files_is_not_used(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(b"a\t12345\nb\t12345\nc\t12345\n")
    path.with_suffix(".lineidx").write_text(WRONG_INDEXES[name])
    stored, problem = stored_offsets(str(path))
    assert stored is None and problem is not None and "cannot be used" in problem
    assert [line.id for line in list_lines(str(path), stored)] == ["a", "b", "c"]


def test_a_line_that_an_index_leaves_out_is_found_when_its_neighbour_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(b"a\t1\nb\t2\nc\t3\n")
    path.with_suffix(".lineidx").write_text("0\n8\n")  # b is left out
    stored, problem = stored_offsets(str(path))
    assert problem is None
    first = next(list_lines(str(path), stored))
    with pytest.raises(InputError, match=r"more than one line.*lineidx"):
        read_line(str(path), first.offset, first.size)


def test_lines_without_a_usable_id_are_named_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsv_lines, "MAX_LINE_BYTES", 2000)
    path = tmp_path / "x.tsv"
    lines = [
        b"\xef\xbb\xbfmarked\t1",
        b"no tab",
        b"",
        b"\tbody",
        b"\xff\xfe\t1",
        b"x" * 1500 + b"\t1",
        b"long\t" + b"y" * 2000,
    ]
    path.write_bytes(b"\n".join([*lines, b"last\t1"]))
    found = list(list_lines(str(path)))
    assert [(line.number, line.id) for line in found if line.problem is None] == [(1, "marked"), (8, "last")]
    problems = {line.number: line.problem or "" for line in found if line.problem}
    assert sorted(problems) == [2, 4, 5, 6, 7]
    assert "no tab" in problems[2] and "no id" in problems[4] and "not UTF-8" in problems[5]
    assert "no tab in its first 1024" in problems[6] and "the limit is 2,000" in problems[7]
    assert found[-2] == TsvLine(
        number=7, offset=found[-2].offset, size=2005, id="long", problem="it has 2,005 bytes, the limit is 2,000"
    )


def test_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").touch()
    (tmp_path / "packed.tsv").write_bytes(gzip.compress(b"a\t1\n"))
    for name, reason in (
        ("none.tsv", "no file"),
        ("", "no file"),
        ("empty.tsv", "empty"),
        ("packed.tsv", "compressed"),
    ):
        with pytest.raises(InputError, match=reason):
            check_tsv(str(tmp_path / name))


def test_a_file_that_shrank_is_no_fault_of_a_sample(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_line(str(tmp_path / "gone.tsv"), 0, 5)


def test_lines_behind_a_url() -> None:
    url = "memory://tsv/x.tsv"
    with fsspec.open(url, "wb") as file:
        file.write(b"a\t1\nb\t22\r\n")
    with fsspec.open("memory://tsv/x.lineidx", "wb") as file:
        file.write(b"0\n4\n")
    assert check_tsv(url) == 10
    assert stored_offsets(url) == (None, None)  # one request a line would cost more than reading it through
    assert [(line.id, read_line(url, line.offset, line.size)) for line in list_lines(url)] == [
        ("a", b"a\t1"),
        ("b", b"b\t22"),
    ]
