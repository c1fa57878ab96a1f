"""Images in tars: every member found and readable by its place, every kind of damage said with its place."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvptr_data.errors import InputError, SampleFault
from mvptr_data.sources.images import ImageRef, list_images, read_image_bytes
from mvptr_data.sources.tar_headers import scan_tar


def make_tar(members: list[tuple[str, bytes]], format: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def listed(path: Path, data: bytes) -> list[ImageRef]:
    path.write_bytes(data)
    return list(list_images(str(path)))


def faults(refs: list[ImageRef]) -> list[tuple[str, str | None]]:
    return [(ref.key, ref.fault) for ref in refs]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_found_and_read_in_place(tmp_path: Path, format: int) -> None:
    long_name = "folder/" * 12 + "n" * 60 + ".jpg"
    members = [("./a.jpg", b"A" * 700), ("b/c.v2.png", b"B"), (long_name, b"C" * 512)]
    if format != tarfile.USTAR_FORMAT:
        members.append(("é" * 130 + ".jpg", b"D" * 3))
    other = [("a.txt", b"a caption"), ("a.json", b"{}"), ("._a.jpg", b"resource fork"), (".git/x.jpg", b"x")]
    refs = listed(tmp_path / "x.tar", make_tar(members[:1] + other + members[1:], format))
    assert [ref.key for ref in refs] == ["a", "b/c.v2", long_name[:-4], "é" * 130][: len(members)]
    assert [ref.member for ref in refs] == [name for name, _ in members]
    assert [read_image_bytes(ref) for ref in refs] == [data for _, data in members]
    assert all(ref.fault is None for ref in refs)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1),
            st.binary(max_size=1500),
        ),
        max_size=6,
    ),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_scan_agrees_with_tarfile(members: list[tuple[str, bytes]], format: int) -> None:
    data = make_tar(members, format)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [(info.name, info.offset_data, info.size, info.isreg()) for info in archive]
    found = [(member.name, member.offset, member.size, member.is_file) for member in scan_tar(io.BytesIO(data))]
    assert found == expected


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_is_a_fault_and_nothing_else(choose: st.DataObject) -> None:
    """Cut or overwritten anywhere, the scan ends, raises nothing but `SampleFault`, and names only places in the file."""
    data = bytearray(
        make_tar([("n" * 120 + ".jpg", b"1" * 600), ("é.jpg", b"2" * 90)], choose.draw(st.sampled_from([1, 2])))
    )
    for place in choose.draw(st.lists(st.integers(0, 4095), max_size=4)):
        data[place] = choose.draw(st.integers(0, 255))
    data = data[: choose.draw(st.integers(0, len(data)))]
    count = 0
    try:
        for member in scan_tar(io.BytesIO(data)):
            count += 1
            assert member.size >= 0 and (member.is_cut or member.offset + member.size <= len(data))
    except SampleFault as fault:
        assert fault.fault_class in ("torn_archive", "empty_file", "missing_file")
    assert count <= 4


def test_every_cut_keeps_the_members_before_it(tmp_path: Path) -> None:
    data = make_tar([("a.jpg", b"A" * 600), ("b.jpg", b"B" * 100)])
    path = tmp_path / "x.tar"
    a_end, b_header, b_body, b_end, mark = 512 + 600, 1536, 2048, 2148, 2560
    for cut in (1, 511, 512, 600, a_end, 1400, b_header, b_header + 100, b_body, b_end - 1, b_end, mark, mark + 512):
        refs = listed(path, data[:cut])
        whole = [ref.key for ref in refs if ref.fault is None]
        assert whole == (["a"] if cut >= a_end else []) + (["b"] if cut >= b_end else []), cut
        if cut <= mark:
            assert (
                refs[-1].key == "x.tar" and refs[-1].fault == "torn_archive" and "at byte" in str(refs[-1].message)
            ), cut
        torn = [ref.key for ref in refs[:-1] if ref.fault == "torn_archive"]
        assert torn == (["a"] if 512 <= cut < a_end else ["b"] if b_body <= cut < b_end else []), cut


def test_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    data = bytearray(make_tar([("a.jpg", b"A"), ("b.jpg", b"B"), ("c.jpg", b"C")]))
    data[1024] ^= 0xFF
    refs = listed(tmp_path / "x.tar", bytes(data))
    assert faults(refs) == [("a", None), ("x.tar", "torn_archive")]
    assert "at byte 1024: the header is damaged" in str(refs[1].message)


def test_glued_archives_are_not_lost_in_silence(tmp_path: Path) -> None:
    refs = listed(tmp_path / "x.tar", make_tar([("a.jpg", b"A")]) + make_tar([("b.jpg", b"B")]))
    assert faults(refs) == [("a", None), ("x.tar", "torn_archive")]
    assert "data follow the end-of-archive mark" in str(refs[1].message)


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (header("a.jpg", -512), "at byte 1024: the header is damaged"),
        (header("a.jpg", 1, tarfile.GNUTYPE_SPARSE), "at byte 1024: it holds a sparse file"),
        (header("././@LongLink", 1 << 40, tarfile.GNUTYPE_LONGNAME), "at byte 1024: the header is damaged .a name of"),
        (
            header("././@LongLink", 900, tarfile.GNUTYPE_LONGNAME) + b"n" * 512,
            "at byte 1024: the archive ends within a header",
        ),
        (
            header("pax", 11, tarfile.XHDTYPE) + b"999 path=x\n".ljust(512, b"\0"),
            "at byte 1024: the header is damaged .pax",
        ),
        (
            header("pax", 11, tarfile.XHDTYPE) + b"11 size=-5\n".ljust(512, b"\0"),
            "at byte 1024: the header is damaged .pax",
        ),
        (header("a.jpg", 1 << 40), "at byte 1024: 1099511627776 bytes of this member's data are missing"),
    ],
)
def test_hostile_headers_end_the_scan(block: bytes, message: str) -> None:
    members = scan_tar(io.BytesIO(header("ok.jpg", 1) + b"x".ljust(512, b"\0") + block))
    assert next(members).name == "ok.jpg"
    with pytest.raises(SampleFault, match=f"torn_archive: {message}"):
        list(members)


def test_pax_size_and_global_headers() -> None:
    """A pax record's size goes before the header's; a global header is no member."""
    records = b"12 size=700\n"
    data = header("g", 12, tarfile.XGLTYPE) + b"12 comment=x".ljust(512, b"\0")
    data += header("x", len(records), tarfile.XHDTYPE) + records.ljust(512, b"\0")
    data += header("a.jpg", 0) + b"A" * 700 + bytes(324) + header("b.jpg", 0) + bytes(1024)
    assert [(member.name, member.offset, member.size) for member in scan_tar(io.BytesIO(data))] == [
        ("a.jpg", 2560, 700),
        ("b.jpg", 4096, 0),
    ]


def test_archive_that_shrank_after_listing(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    (ref,) = listed(path, make_tar([("a.jpg", b"A" * 600)]))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(SampleFault, match=r"torn_archive: the archive has 188 of the 600 bytes of 'a.jpg'") as caught:
        read_image_bytes(ref)
    assert str(tmp_path) not in caught.value.message
    path.unlink()
    with pytest.raises(SampleFault, match="missing_file"):
        read_image_bytes(ref)


def test_links_and_unsafe_names_are_faults(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("/etc/a.jpg", "../b.jpg", "c/../d.jpg", "ok.jpg", "empty.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 0 if name == "empty.jpg" else 1
            archive.addfile(info, io.BytesIO(b"x"))
        for name, kind in (
            ("soft.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE),
            ("folder.jpg", tarfile.DIRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "ok.jpg"
            archive.addfile(info)
    refs = listed(tmp_path / "x.tar", file.getvalue())
    assert faults(refs) == [
        ("/etc/a", "unsafe_key"),
        ("../b", "unsafe_key"),
        ("c/../d", "unsafe_key"),
        ("ok", None),
        ("empty", None),
        ("soft", "missing_file"),
        ("hard", "missing_file"),
    ]
    with pytest.raises(SampleFault, match="empty_file"):
        read_image_bytes(refs[4])


def test_img2dataset_folder_mixed_with_images(tmp_path: Path) -> None:
    for shard in range(2):
        names = [f"{shard:05d}{number:04d}" for number in range(3)]
        members = [(f"{name}.{end}", f"{name}.{end}".encode()) for name in names for end in ("jpg", "txt", "json")]
        (tmp_path / f"{shard:05d}.tar").write_bytes(make_tar(members))
        (tmp_path / f"{shard:05d}.parquet").write_bytes(b"PAR1")
        (tmp_path / f"{shard:05d}_stats.json").write_text(json.dumps({"count": 3}))
    (tmp_path / "00000z.jpg").write_bytes(b"loose")
    (tmp_path / "torn.tar").write_bytes(b"")
    (tmp_path / "small.tar.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "zipped.tar").write_bytes(b"\x1f\x8b" + b"0" * 600)
    found = faults(list(list_images(str(tmp_path))))
    assert found == [
        *((f"00000000{number}", None) for number in range(3)),
        ("00000z", None),
        *((f"00001000{number}", None) for number in range(3)),
        ("small.tar.gz", "missing_file"),
        ("torn.tar", "empty_file"),
        ("zipped.tar", "missing_file"),
    ]


def test_remote_archives_are_read_by_range() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/sources-archives/x.tar", make_tar([("a.jpg", b"AAA"), ("b.jpg", b"BB")]))
    refs = list(list_images("memory://sources-archives"))
    assert refs == list(list_images("memory://sources-archives/x.tar"))
    assert [read_image_bytes(ref) for ref in refs] == [b"AAA", b"BB"]


def test_archive_without_images(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(make_tar([("a.txt", b"A")]))
    with pytest.raises(InputError, match="no images found"):
        list(list_images(str(tmp_path / "x.tar")))


def test_an_archive_written_anew_gives_no_other_image(tmp_path: Path) -> None:
    """Same size, other order: without a look at the headers, each key would get the other's pixels."""
    path, one, two = tmp_path / "x.tar", b"1" * 700, b"2" * 700
    refs = listed(path, make_tar([("a.jpg", one), ("b.jpg", two)]))
    changed = [
        make_tar([("b.jpg", two), ("a.jpg", one)]),
        make_tar([("a.jpg", one[:-1]), ("b.jpg", two[:-1])]),
        make_tar([("c" * 120 + ".jpg", one), ("a.jpg", one), ("b.jpg", two)]),
        bytes(4096),
        b"x" * 4096,
    ]
    for data in changed:
        path.write_bytes(data)
        for ref in refs:
            with pytest.raises(SampleFault) as caught:
                read_image_bytes(ref)
            assert str(caught.value) == "torn_archive: the archive changed since it was listed"
    path.write_bytes(make_tar([("a.jpg", two), ("b.jpg", two)]))  # the same names and sizes: nothing to see
    assert [read_image_bytes(ref) for ref in refs] == [two, two]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_told_apart(tmp_path: Path, format: int) -> None:
    long = ["f/" + "n" * 90 + "/1.jpg", "g/" + "n" * 90 + "/2.jpg"]
    foreign = ["a/é.jpg", "b/é.jpg"]
    for one, two in (long, foreign):
        refs = listed(tmp_path / "x.tar", make_tar([(one, b"1" * 9), (two, b"2" * 9)], format))
        assert [read_image_bytes(ref) for ref in refs] == [b"1" * 9, b"2" * 9]
        (tmp_path / "x.tar").write_bytes(make_tar([(two, b"2" * 9), (one, b"1" * 9)], format))
        for ref in refs:
            with pytest.raises(SampleFault, match="changed since it was listed"):
                read_image_bytes(ref)


@settings(max_examples=60, deadline=None)
@given(
    st.sets(
        st.lists(
            st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1
        )
        .map(lambda parts: "x" + "/x".join(parts) + ".jpg")
        .filter(lambda name: len(name) < 400),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_every_member_that_did_not_change_is_read(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], format: int
) -> None:
    members = [(name, name.encode()) for name in sorted(names)]
    refs = listed(tmp_path_factory.mktemp("names") / "x.tar", make_tar(members, format))
    sound = {ref.member: read_image_bytes(ref) for ref in refs if ref.fault is None}
    assert sound == {name: data for name, data in members if name in sound}
    assert all(ref.fault in (None, "unsafe_key") for ref in refs) and len(refs) == len(names)


@pytest.mark.parametrize("format", ["gnu", "pax", "ustar", "v7"])
def test_archives_of_the_tar_command_are_read(tmp_path: Path, format: str) -> None:
    program = shutil.which("tar")
    if program is None:
        pytest.skip("there is no tar command here")
    names = ["a.jpg", "b/é 日本.jpg"]
    if format != "v7":
        names.append("d" * 60 + "/" + "e" * 60 + "/f.jpg")
    if format in ("gnu", "pax"):
        names += ["n" * 180 + ".jpg", "日本" * 30 + "/" + "本" * 60 + ".jpg"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(name.encode())
    command = [program, f"--format={format}", "-cf", str(tmp_path / "x.tar"), "-C", str(tmp_path / "in"), "."]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"this tar command does not write {format}")
    refs = list(list_images(str(tmp_path / "x.tar")))
    assert sorted(read_image_bytes(ref) for ref in refs) == sorted(name.encode() for name in names)


@pytest.mark.parametrize(
    ("header_name", "member", "expected"),
    [
        ("folder/" + "n" * 99, "folder/" + "n" * 150 + ".jpg", True),  # libarchive: folder, start of the last part
        ("f.jpg", "d" * 200 + "/f.jpg", True),  # libarchive: a folder that does not fit is left out
        ("x/" + "n" * 99, "folder/" + "n" * 150 + ".jpg", False),
        ("a/%U00E9.jpg", "a/é.jpg", True),
        ("b/%U00E9.jpg", "a/é.jpg", False),
        ("a/\udce9.jpg", "a/é.jpg", True),
        ("", "a.jpg", False),
        ("a", "a.jpg", False),
    ],
)
def test_names_that_other_programs_shorten(tmp_path: Path, header_name: str, member: str, expected: bool) -> None:
    """A pax record names the member; what its own header says is what each program makes of it."""
    record = f" path={member}\n".encode()
    size = next(n for n in range(len(record), len(record) + 5) if len(str(n)) + len(record) == n)
    body = str(size).encode() + record
    data = header("x", len(body), tarfile.XHDTYPE) + body.ljust(-(-len(body) // 512) * 512, b"\0")
    info = tarfile.TarInfo(header_name)
    info.size = 1
    block = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    assert len(block) == 512
    (ref,) = listed(tmp_path / "x.tar", data + block + b"A".ljust(512, b"\0") + bytes(1024))
    assert ref.member == member
    if expected:
        assert read_image_bytes(ref) == b"A"
    else:
        with pytest.raises(SampleFault, match="changed since it was listed"):
            read_image_bytes(ref)


def test_a_size_that_only_a_pax_record_has(tmp_path: Path) -> None:
    records = b"12 size=700\n"
    data = header("x", len(records), tarfile.XHDTYPE) + records.ljust(512, b"\0") + header("a.jpg", 0)
    (ref,) = listed(tmp_path / "x.tar", data + b"A" * 700 + bytes(324) + bytes(1024))
    assert read_image_bytes(ref) == b"A" * 700
