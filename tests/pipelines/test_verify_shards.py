"""Break a data set in every way that readers would not notice, and see it found."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mvptr_data.dataset import layout
from mvptr_data.dataset.fields import FIELDS, claim_generation, load_state, stem
from mvptr_data.dataset.manifest import load_manifest, publish
from mvptr_data.dataset.plan import load_plan
from mvptr_data.dataset.receipts import read_receipt
from mvptr_data.dataset.records import decode_array, encode_array
from mvptr_data.dataset.samples import shard_samples
from mvptr_data.dataset.shards import read_rows, shard_writer
from mvptr_data.errors import DamagedFileError, FormatVersionError, IncompleteError, SampleFault
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store, digest
from pipelines.cluster import ClusterOptions
from pipelines.verify_shards import Verification, verify_shards


def verify(path: Path) -> Verification:
    return verify_shards(str(path), cluster=ClusterOptions(cluster="inline"), quiet=True)


def test_a_sound_data_set_has_no_findings(published: Path) -> None:
    result = verify(published)
    assert result.findings == () and result.samples == 11 and result.files == 12


@pytest.mark.parametrize(
    "name",
    [
        "regions/00001.tar",
        "regions/00001.parquet",
        "text/00002.tar",
        "text/00000.parquet",
        "text/phrase_vocab.parquet",
        "plan/00001.parquet",
        "regions/field.json",
        "text/field.json",
    ],
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "append"])
def test_any_damage_to_any_file_is_found(data_set: Path, name: str, damage: str) -> None:
    file = data_set / name
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[Random(name).randrange(len(data))] ^= 4
    elif damage == "cut":
        del data[512 * (len(data) // 1024) :]
    elif damage == "append":
        data += b"\0"
    file.write_bytes(data) if damage != "remove" else file.unlink()
    assert name in {finding.file for finding in verify(data_set).findings}


@pytest.mark.parametrize(
    "name",
    [
        "captions/captions.json",
        "captions/faults.parquet",
        "captions/unmatched.parquet",
        "phrase_counts.parquet",
        "phrase_vocab.parquet",
    ],
)
@pytest.mark.parametrize("damage", ["cut", "append"])
def test_what_further_commands_need_may_be_gone_but_not_damaged(data_set: Path, name: str, damage: str) -> None:
    file = data_set / name
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] if damage == "cut" else data + b"\0")
    assert [finding.file for finding in verify(data_set).findings] == [name]
    file.unlink()
    assert verify(data_set).findings == ()


STATED = ("plan/plan.json", "regions/field.json", "text/field.json", "captions/captions.json")


def flips_not_found(out: Path, wanted: Callable[[int], bool]) -> list[str]:
    """Flips of a bit in the files that say how a data set was made, in the places `wanted`, after which it counts as sound."""
    unseen, number = [], 0
    for name in STATED:
        sound = (out / name).read_bytes()
        for at, mask in product(range(len(sound)), (1, 16)):
            number += 1
            if not wanted(number):
                continue
            (out / name).write_bytes(sound[:at] + bytes([sound[at] ^ mask]) + sound[at + 1 :])
            try:
                found = {finding.file for finding in verify(out).findings}
            except (DamagedFileError, FormatVersionError) as error:
                found = {name} if name in str(error) else set()
            if name not in found:
                unseen.append(f"{name} {at}: {sound[max(0, at - 15) : at + 10]!r}")
        (out / name).write_bytes(sound)
    return unseen


#: The name under which a plan has its digest, which older ones lack, and the number of a field's generation, which names none of
#: its bytes: further text is counted from it.
UNSIGNED = ('"digest"', '"generation"')


def is_signed(flip: str) -> bool:
    return not any(name in flip for name in UNSIGNED)


def test_a_flipped_bit_in_what_says_how_it_was_made_is_found(data_set: Path) -> None:
    assert [flip for flip in flips_not_found(data_set, lambda number: number % 67 == 0) if is_signed(flip)] == []


@pytest.mark.slow
def test_any_flipped_bit_in_what_says_how_it_was_made_is_found(data_set: Path) -> None:
    assert [flip for flip in flips_not_found(data_set, lambda _: True) if is_signed(flip)] == []


def test_a_vocabulary_with_other_counts_than_were_published_is_found(data_set: Path) -> None:
    store = Store.at(data_set)
    vocabulary = PhraseVocabulary.load(store.path("phrase_vocab.parquet"))
    (first, *others) = vocabulary.sentences
    assert first is not None
    replace(vocabulary, sentences=(first + 1, *others)).save(store, "phrase_vocab.parquet")
    assert [finding.file for finding in verify(data_set).findings] == ["phrase_vocab.parquet"]
    vocabulary.save(store, "phrase_vocab.parquet")
    (data_set / "text/phrase_vocab.parquet").write_bytes(b"")  # then nobody can compare
    assert {finding.file for finding in verify(data_set).findings} == {"text/phrase_vocab.parquet"}


def test_text_that_is_begun_anew_is_no_damage(data_set: Path) -> None:
    claim_generation(Store.at(data_set), "text", {"vocabulary": "another"})
    assert verify(data_set).findings == ()


def test_manifest_and_index_are_not_trusted_when_changed(data_set: Path, tmp_path: Path) -> None:
    manifest = data_set / "manifest.json"
    sound = manifest.read_text()
    manifest.write_text(sound.replace('"samples": 11', '"samples": 12'))
    with pytest.raises(DamagedFileError, match="manifest"):
        verify(data_set)
    manifest.write_text(sound.replace('"version": 2', '"version": 3'))
    with pytest.raises(FormatVersionError, match=r"version 3.*reads \[2\]"):
        verify(data_set)
    manifest.write_text(sound)
    index = data_set / "index.parquet"
    index.write_bytes(index.read_bytes()[:-1] + b"\0")
    with pytest.raises(DamagedFileError, match="index"):
        verify(data_set)
    with pytest.raises(IncompleteError, match="manifest"):
        verify(tmp_path / "nothing")


Members = dict[str, bytes]


def rewrite(
    path: Path,
    field: str,
    change: Callable[[str, Members, dict[str, object]], None],
    shard_0: dict[str, Any] | None = None,
) -> None:
    """Write shard 0 of a field again with `change` applied to each sample, and publish it: sound digests, unsound contents."""
    store = Store.at(path)
    plan, manifest = load_plan(store), load_manifest(store)
    receipt = read_receipt(store, field, 0)
    assert receipt is not None
    raw = store.read(receipt.tar.name)
    spec = FIELDS[field]
    with shard_writer(store, spec, 0, configuration_digest=receipt.configuration_digest) as (writer, _):
        for row in read_rows(store, receipt.rows.name):
            facts = {name: row[name] for name, _ in spec.columns}
            if row["status"] != "ok":
                writer.add_fault(row["key"], SampleFault(row["error_class"], row["message"]), facts)
                continue
            members = {
                member: raw[row[f"{stem(member)}_offset"] :][: row[f"{stem(member)}_size"]] for member in spec.members
            }
            change(row["key"], members, facts)
            writer.add(str(facts.pop("key", row["key"])), members, facts)
    receipts = [read_receipt(store, name, shard) for name in FIELDS for shard in range(plan.shards)]
    states = {name: load_state(store, name) for name in FIELDS}
    publish(
        store,
        plan,
        [receipt for receipt in receipts if receipt],
        configurations={name: state.configuration for name, state in states.items() if state},
        samples=[
            replace(
                shard_samples(store, *(layout.shard_file(name, shard, 0, "parquet") for name in FIELDS)),
                **({} if shard else shard_0 or {}),
            )
            for shard in range(plan.shards)
        ],
        facts={name: manifest[name] for name in ("captions", "phrase_vocab")},
    )


def array_change(
    member: str, change: Callable[[np.ndarray], np.ndarray]
) -> Callable[[str, Members, dict[str, object]], None]:
    def apply(_: str, members: Members, __: dict[str, object]) -> None:
        members[member] = encode_array(change(decode_array(members[member], member).copy()))

    return apply


def json_change(
    member: str, change: Callable[[dict[str, object]], None]
) -> Callable[[str, Members, dict[str, object]], None]:
    def apply(_: str, members: Members, __: dict[str, object]) -> None:
        value = json.loads(members[member])
        change(value)
        members[member] = json.dumps(value).encode()

    return apply


def with_nan(array: np.ndarray) -> np.ndarray:
    array[0, 0] = np.nan
    return array


CONTENT = {
    "a feature is NaN": ("regions", array_change("features.npy", with_nan)),
    "a box is NaN": ("regions", array_change("boxes.npy", with_nan)),
    "leaves its image": ("regions", array_change("boxes.npy", lambda boxes: boxes + 300)),
    "a box ends before it begins": ("regions", array_change("boxes.npy", lambda boxes: boxes[:, [2, 1, 0, 3]])),
    "boxes are float64": ("regions", array_change("boxes.npy", lambda boxes: boxes.astype(np.float64))),
    "features are float16": ("regions", array_change("features.npy", lambda features: features[:, :100])),
    "not a readable .npy": ("regions", lambda _, members, __: members.update({"boxes.npy": members["boxes.npy"][:-3]})),
    "the parquet 256 x 256": ("regions", json_change("regions.json", lambda facts: facts.update(width=9))),
    "different lengths": ("regions", json_change("regions.json", lambda facts: facts["scores"].pop())),  # type: ignore[attr-defined]
    "another kind": ("regions", json_change("regions.json", lambda facts: facts.update(width="wide"))),
    "value of another kind": (
        "text",
        json_change("text.json", lambda text: [c.update(text=7) for c in text["captions"]]),
    ),  # type: ignore[attr-defined]
    "format version 9": ("regions", json_change("regions.json", lambda facts: facts.update(version=9))),
    "the parquet says": ("text", json_change("text.json", lambda text: text["captions"].pop())),  # type: ignore[attr-defined]
    "leave caption": (
        "text",
        json_change(
            "text.json", lambda text: [p.update(spans=[[0, 999]]) for c in text["captions"] for p in c["phrases"]]
        ),
    ),  # type: ignore[attr-defined]
    "not in the vocabulary": (
        "text",
        json_change(
            "text.json", lambda text: [p.update(phrase=["no", "such"]) for c in text["captions"] for p in c["phrases"]]
        ),
    ),  # type: ignore[attr-defined]
    "not the plan's": ("text", lambda key, _, facts: facts.update(key=f"{key}x")),
}


@pytest.mark.parametrize("message", CONTENT, ids=str)
def test_unsound_contents_are_found_though_digests_agree(data_set: Path, message: str) -> None:
    field, change = CONTENT[message]
    rewrite(data_set, field, change)  # type: ignore[arg-type]
    findings = verify(data_set).findings
    assert findings and all(finding.file.startswith(f"{field}/00000") for finding in findings)
    assert any(message in finding.message for finding in findings), [finding.message for finding in findings][:3]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("captions", "shard 0 has [4, 4, 4, 4, 4] samples with 1, 2, ... captions, promised were others"),
        ("image_ids", "shard 0 has other images than promised"),
        ("positions", "other positions hold samples than promised"),
    ],
)
def test_a_brief_that_is_not_so_is_found_though_digests_agree(data_set: Path, what: str, message: str) -> None:
    of = {
        "captions": np.array([5, 5, 5, 4], np.int32),
        "image_ids": np.arange(4, dtype=np.uint64),
        "positions": np.array([0, 1, 2, 5], np.int32),
    }
    rewrite(data_set, "text", lambda *_: None, shard_0={what: of[what]})
    assert [finding.message for finding in verify(data_set).findings] == [message]


def test_rewriting_without_a_change_is_sound(data_set: Path) -> None:
    for field in FIELDS:
        rewrite(data_set, field, lambda *_: None)
    assert verify(data_set).findings == ()


def test_a_receipt_that_disagrees_is_found(data_set: Path) -> None:
    (data_set / "regions/00002.json").unlink()
    assert [(finding.kind, finding.file) for finding in verify(data_set).findings] == [
        ("receipt", "regions/00002.json")
    ]


def sign(path: Path, change: Callable[[list[dict[str, Any]]], None] = lambda rows: None) -> None:
    """Change the index's rows, then compute every digest again that the index and the manifest promise."""
    store = Store.at(path)
    table = pq.read_table(path / "index.parquet")
    rows = table.to_pylist()
    for row in rows:
        row.update(bytes=store.size(row["file"]), sha256=store.sha256(row["file"]))
        row.update(rows_bytes=store.size(row["rows_file"]), rows_sha256=store.sha256(row["rows_file"]))
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path / "index.parquet")
    sign_manifest(path)


def sign_manifest(path: Path, change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["index"]["sha256"] = Store.at(path).sha256(layout.INDEX)
    change(manifest)
    del manifest["digest"]
    (path / "manifest.json").write_text(json.dumps(manifest | {"digest": digest(manifest)}))


def header_with(**values: Any) -> Callable[[bytearray], None]:
    """The first member's header with other values, its checksum right."""

    def change(data: bytearray) -> None:
        for start, value in values.items():
            at = int(start.removeprefix("at"))
            data[at : at + len(value)] = value
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])

    return change


@pytest.mark.parametrize(
    "change",
    [
        header_with(at156=b"2", at157=b"/etc/passwd"),  # a link
        header_with(at156=b"3"),  # a device
        header_with(at156=b"S"),  # a sparse file
        header_with(at124=b"77777777777\0"),  # 8 GB
        header_with(at124=b"\x80" + b"\xff" * 11),  # more than 10^28 bytes
        header_with(at124=b"\xff" * 12),  # -1 byte, over which Python's own reader goes in circles
        header_with(at156=b"L", at124=b"77777777777\0"),  # a name of 8 GB
        header_with(at0=b"../../outside".ljust(100, b"\0")),
        lambda data: data.__setitem__(slice(len(data) - 1, None), b"\1"),
        lambda data: data.extend(bytes(10240)),
    ],
)
def test_tars_that_are_not_ours_byte_for_byte_are_found(data_set: Path, change: Callable[[bytearray], None]) -> None:
    """Links, devices, sizes beyond all disks, with digests that agree."""
    file = data_set / "text/00000.tar"
    data = bytearray(file.read_bytes())
    change(data)
    file.write_bytes(data)
    sign(data_set, lambda rows: None)
    manifest = json.loads((data_set / "manifest.json").read_text())
    if len(data) != (manifest["fields"]["text"]["bytes"]):
        sign_manifest(
            data_set, lambda m: m["fields"]["text"].update(bytes=sum(f.stat().st_size for f in tars(data_set)))
        )
    found = [finding for finding in verify(data_set).findings if finding.file == "text/00000.tar"]
    assert [finding.kind for finding in found] in (["alignment"], ["count"])


def tars(path: Path) -> list[Path]:
    return sorted((path / "text").glob("*.tar"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"file": "../outside.tar"}, "names '../outside.tar'"),
        ({"field": "../x"}, "of '../x'"),
        ({"shard": -1, "file": "text/-0001.tar", "rows_file": "text/-0001.parquet"}, "a shard -1"),
        ({"generation": None}, "rows without generation"),
        ({"sha256": None}, "rows without sha256"),
    ],
)
def test_a_signed_index_leads_nowhere(data_set: Path, value: dict[str, Any], message: str) -> None:
    sign(data_set, lambda rows: rows[-1].update(value))
    with pytest.raises(DamagedFileError, match=rf"index\.parquet .*{message}"):
        verify(data_set)


def test_a_generation_of_text_in_the_index_leads_nowhere(data_set: Path) -> None:
    """A number by the schema, a path by its value: `regions/00000.g1/../../x.tar`."""
    table = pq.read_table(data_set / "index.parquet")
    way = "1/../../../outside/x"
    rows = [
        row
        | {
            "generation": way,
            "file": f"{row['field']}/00000.g{way}.tar",
            "rows_file": f"{row['field']}/00000.g{way}.parquet",
        }
        for row in table.to_pylist()
    ]
    schema = pa.schema([item.with_type(pa.string()) if item.name == "generation" else item for item in table.schema])
    pq.write_table(pa.Table.from_pylist(rows, schema.with_metadata(table.schema.metadata)), data_set / "index.parquet")
    sign_manifest(data_set)
    with pytest.raises(DamagedFileError, match=r"the column 'generation' \(string\)"):
        verify(data_set)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.update(fields=["regions"]), "fields, not an object"),
        (lambda manifest: manifest.update(shards="3"), "shards, not a number"),
        (lambda manifest: manifest.update(samples=10**400), "a number of many digits as samples"),
        (lambda manifest: manifest["fields"].update(x=manifest["fields"]["text"]), "names 'x' as a field"),
        (lambda manifest: manifest["fields"]["text"]["counts"].update(ok=None), r"fields\.text\.counts\.ok"),
        (lambda manifest: manifest["fields"]["text"]["counts"].pop("inputs"), r"lacks fields\.text\.counts\.inputs"),
        (lambda manifest: manifest["order"].pop("files"), r"lacks order\.files"),
        (lambda manifest: manifest["phrase_vocab"].update(name="../outside.parquet"), "names '../outside.parquet'"),
        (lambda manifest: manifest.update(captions=None), "captions, not an object"),
    ],
)
def test_a_signed_manifest_of_another_form_is_a_typed_error(
    data_set: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    sign_manifest(data_set, change)
    with pytest.raises(DamagedFileError, match=rf"manifest\.json .*{message}"):
        verify(data_set)


def test_captions_that_changed_are_found_and_those_that_are_gone_are_not_missed(data_set: Path) -> None:
    bucket = data_set / "captions/00000.parquet"
    data = bytearray(bucket.read_bytes())
    data[len(data) // 3] ^= 1
    bucket.write_bytes(data)
    assert [(finding.kind, finding.file) for finding in verify(data_set).findings] == [
        ("captions", "captions/00000.parquet")
    ]
    shutil.rmtree(data_set / "captions")
    assert verify(data_set).findings == ()


def test_a_data_set_behind_a_web_server_is_verified(data_set: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    before = set(data_set.rglob("*"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(data_set))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            sound = verify_shards(url, cluster=ClusterOptions(cluster="inline"), quiet=True)
            assert set(data_set.rglob("*")) == before, "nothing was written"
            (data_set / "regions/00001.tar").unlink()
            broken = verify_shards(url, cluster=ClusterOptions(cluster="inline"), quiet=True)
        finally:
            server.shutdown()
            thread.join()
    assert sound.findings == () and sound.samples == 11
    assert [(found.file, found.message) for found in broken.findings] == [("regions/00001.tar", "the file is missing")]


def test_a_data_set_that_cannot_be_written_to_is_verified(data_set: Path) -> None:
    shutil.rmtree(data_set / "logs")
    (data_set / "logs").write_text("no folder")
    assert verify(data_set).findings == ()
