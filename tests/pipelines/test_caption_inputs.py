from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mvptr_data.errors import InputError
from mvptr_data.phrases import PhraseVocabulary
from pipelines import parse_captions
from pipelines.caption_inputs import CaptionInput, check_unchanged, files_of, identify_inputs
from pipelines.cluster import ClusterOptions
from pipelines.phrase_vocab import build_phrase_vocab

CAT = '{"image": "z.jpg", "captions": ["A cat."]}\n'
BALL = '{"image": "a.jpg", "captions": ["A red ball.", "A ball on a table."]}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.jsonl").write_text(BALL)
    (folder / "b.jsonl").write_text(CAT)
    (folder / "c.jpg").write_bytes(b"no captions")
    return folder


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def identify(*paths: Path) -> list[CaptionInput]:
    return identify_inputs([str(path) for path in paths])


def build(*arguments: object) -> PhraseVocabulary:
    *paths, out = map(str, arguments)
    inline = ClusterOptions(cluster="inline")
    return build_phrase_vocab(paths, out, min_sentences=1, cluster=inline, quiet=True).vocabulary


def test_the_files_of_a_folder_are_known_one_by_one(folder: Path, tmp_path: Path) -> None:
    found, file = identify(folder)[0], identify(folder / "a.jsonl")[0]
    files = [sha256(BALL.encode()), sha256(CAT.encode())]
    of_all = sha256(b"".join(map(bytes.fromhex, files)))
    assert found.identity == {"name": "folder", "sha256": of_all}
    assert found.counted == {"name": "folder", "sha256": of_all, "files": files}
    assert file.counted == file.identity == {"name": "a.jsonl", "sha256": files[0]}
    assert files_of(found.counted) == set(files) and files_of(file.counted) == {files[0]}
    [corpus] = build(folder, tmp_path / "out").configuration["corpora"]
    assert corpus["inputs"] == [found.counted]


def test_captions_given_twice_are_refused(folder: Path, tmp_path: Path) -> None:
    file, copy = folder / "a.jsonl", tmp_path / "copy.jsonl"
    copy.write_text(BALL)
    for paths, named in (((file, file), file), ((file, copy), copy), ((copy, folder), file), ((folder, folder), file)):
        first = copy if paths[0] == copy else file
        with pytest.raises(InputError, match=f"{first} and {named} are the same captions"):
            identify(*paths)
    with pytest.raises(InputError, match="counted twice"):
        build(file, copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_empty_files_are_not_the_same_captions(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (folder / "d.tsv").touch()
    (other / "d.tsv").touch()
    assert len(identify(folder, other)) == 2


@pytest.mark.parametrize("name", ["a.jsonl", "more.jsonl"])
def test_captions_that_change_while_they_are_read_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = parse_captions.read_captions

    def read(*arguments: Any, **options: Any) -> Iterator[Any]:
        (folder / name).write_text(BALL + CAT)  # after the digest, before the first record
        yield from real(*arguments, **options)

    monkeypatch.setattr(parse_captions, "read_captions", read)
    with pytest.raises(InputError, match=f"{folder} was changed while"):
        build(folder, tmp_path / "out")
    assert not (tmp_path / "out/captions/captions.json").exists()
    monkeypatch.setattr(parse_captions, "read_captions", real)
    assert build(folder, tmp_path / "out") == build(folder, tmp_path / "fresh")


def test_what_is_as_it_was_is_unchanged(folder: Path) -> None:
    found = identify(folder)
    check_unchanged(found)
    (folder / "c.jpg").write_bytes(b"none either")
    check_unchanged(found)


def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = Path(f"{tmp_path}/bad\udcff.jsonl")
    file.write_text(BALL)
    with pytest.raises(InputError, match="is not UTF-8"):
        build(file, tmp_path / "out")
    assert len(identify(tmp_path)[0].files) == 1  # in a folder its name is nothing that is kept
