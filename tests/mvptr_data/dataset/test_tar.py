from __future__ import annotations

import hashlib
import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from mvptr_data.dataset.tar import TarWriter, archive_end, member_header, member_padding

NAMES = st.from_regex(r"[A-Za-z0-9_%-]{1,60}(/[A-Za-z0-9_%-]{1,200})?\.[a-z]{1,8}\.json", fullmatch=True)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=2000)), max_size=8))
def test_members_lie_where_the_writer_says_and_tarfile_reads_them(members: list[tuple[str, bytes]]) -> None:
    file = io.BytesIO()
    writer = TarWriter(file)
    places = [writer.add(name, data) for name, data in members]
    sha256 = writer.close()
    raw = file.getvalue()
    assert sha256 == hashlib.sha256(raw).hexdigest()
    assert len(raw) == writer.bytes
    for (offset, size), (_, data) in zip(places, members, strict=True):
        assert raw[offset : offset + size] == data
    pieces = [member_header(name, len(data)) + data + member_padding(len(data)) for name, data in members]
    assert raw == b"".join(pieces) + archive_end(sum(map(len, pieces)))
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        infos = tar.getmembers()
        assert [(info.name, info.offset_data, info.size) for info in infos] == [
            (name, *place) for (name, _), place in zip(members, places, strict=True)
        ]
        assert all((info.mtime, info.uid, info.gid, info.uname, info.mode) == (0, 0, 0, "", 0o644) for info in infos)


def test_the_same_members_give_the_same_bytes() -> None:
    archives = []
    for _ in range(2):
        file = io.BytesIO()
        writer = TarWriter(file)
        writer.add("a/b.text.json", b"{}")
        writer.close()
        archives.append(file.getvalue())
    assert archives[0] == archives[1]
