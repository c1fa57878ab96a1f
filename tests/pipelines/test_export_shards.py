from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import resource
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from mvptr_data.dataset.fields import load_state
from mvptr_data.dataset.locks import hold_lock
from mvptr_data.dataset.plan import read_keys
from mvptr_data.dataset.records import RegionFacts, decode_array, decode_regions, encode_text, geometry
from mvptr_data.dataset.shards import read_rows
from mvptr_data.errors import (
    BusyError,
    ConfigurationMismatchError,
    DamagedFileError,
    IncompleteError,
    InputError,
    OutputError,
)
from mvptr_data.keys import encode_key
from mvptr_data.sources.tsv_lines import stored_offsets
from mvptr_data.storage import Store
from mvptr_model.stream.reader import ShardReader
from pipelines import export_parts
from pipelines import export_shards as export_shards_module
from pipelines.cli import main
from pipelines.cluster import ClusterOptions
from pipelines.export_shards import export_shards
from pipelines.import_features import import_features
from pipelines.phrase_vocab import build_phrase_vocab
from pipelines.write_shards import write_shards

INLINE = ClusterOptions(cluster="inline")
Stored = dict[str, tuple[np.ndarray, np.ndarray, RegionFacts]]


def exported(path: Path) -> dict[str, str]:
    """sha256 of every file of an export but its log."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir() if file.is_file()}


def stored_regions(out: Path) -> Stored:
    """Features, boxes and facts by key, of all regions of a data set, published or not."""
    store, found = Store.at(out), {}
    for name in sorted(path.name for path in (out / "regions").glob("*.tar")):
        data = store.read(f"regions/{name}")
        for row in read_rows(store, f"regions/{name.removesuffix('.tar')}.parquet"):
            if row["status"] == "ok":
                features, boxes, facts = (
                    data[row[f"{what}_offset"] :][: row[f"{what}_size"]] for what in ("features", "boxes", "regions")
                )
                found[row["key"]] = (
                    decode_array(features, ""),
                    decode_array(boxes, ""),
                    decode_regions(facts, ""),
                )
    return found


def test_webdataset_reads_all_fields_of_a_sample(published: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    summary = export_shards(str(published), str(target), form="webdataset", cluster=INLINE, quiet=True)
    assert list(summary.files) == ["00000.tar", "00001.tar", "00002.tar"] and summary.samples == 11
    tars = [str(target / name) for name in summary.files]
    records = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode())
    with ShardReader(str(published)) as reader:
        samples = list(reader)
    assert [record["__key__"] for record in records] == [encode_key(sample.key) for sample in samples]
    for record, sample in zip(records, samples, strict=True):
        assert (record["features.npy"] == sample.features).all() and (record["boxes.npy"] == sample.boxes).all()
        assert tuple(record["regions.json"]["tags"]) == sample.regions.tags
        text = encode_text(sample.split, sample.captions)["text.json"]
        assert record["text.json"] == json.loads(text)
    # Every member as it is in the data set, in order of extension.
    with tarfile.open(tars[0]) as tar:
        members = tar.getnames()
    assert [name.partition(".")[2] for name in members[:4]] == [
        "boxes.npy",
        "features.npy",
        "regions.json",
        "text.json",
    ]


def test_names_that_nobody_trusts_stay_encoded(tmp_path: Path) -> None:
    names = ["a/x.v2", "ein Bild", "日本", "x" * 250]
    source = tmp_path / "x.tsv"
    source.write_text("".join(f'{name}\t{{"objects": []}}\n' for name in names))
    captions = tmp_path / "c.jsonl"
    captions.write_text("".join(json.dumps({"image": name, "caption": "A dog."}) + "\n" for name in names))
    out = tmp_path / "out"
    publish(source, captions, out)
    export_shards(str(out), str(tmp_path / "w"), form="webdataset", cluster=INLINE, quiet=True)
    with tarfile.open(tmp_path / "w/00000.tar") as tar:
        assert {name.partition(".")[0] for name in tar.getnames()} == {encode_key(name) for name in names}
    export_shards(str(out), str(tmp_path / "v"), form="vinvl-tsv", features="both", cluster=INLINE, quiet=True)
    assert json.loads((tmp_path / "v/imageid2idx.json").read_text()) == {name: n for n, name in enumerate(names)}
    lines = (tmp_path / "v/predictions.tsv").read_text().splitlines()
    assert [line.partition("\t")[0] for line in lines] == names


def test_only_samples_that_are_there_go_out(tmp_path: Path) -> None:
    """WebDataset wants every field of a sample, VinVL's lines only regions; a fault is in neither."""
    source, captions, out = tmp_path / "x.tsv", tmp_path / "c.jsonl", tmp_path / "out"
    source.write_text('whole\t{"objects": []}\nbroken\t{\nuncaptioned\t{"objects": []}\nlast\t{"objects": []}\n')
    names = ("whole", "broken", "last")
    captions.write_text("".join(json.dumps({"image": name, "caption": "A dog."}) + "\n" for name in names))
    publish(source, captions, out, samples_per_shard=2)
    tars, lines = tmp_path / "w", tmp_path / "v"
    assert export_shards(str(out), str(tars), form="webdataset", cluster=INLINE, quiet=True).samples == 2
    files = [str(path) for path in sorted(tars.glob("*.tar"))]
    assert [record["__key__"] for record in webdataset.WebDataset(files, shardshuffle=False)] == ["whole", "last"]
    assert export_shards(str(out), str(lines), form="vinvl-tsv", cluster=INLINE, quiet=True).samples == 3
    found = (lines / "predictions.tsv").read_text().splitlines()
    assert [line.partition("\t")[0] for line in found] == ["whole", "uncaptioned", "last"]


def publish(source: Path, captions: Path, out: Path, **options: object) -> None:
    import_features(str(source), str(out), cluster=INLINE, quiet=True, **options)  # type: ignore[arg-type]
    build_phrase_vocab([str(captions)], str(out), min_sentences=1, cluster=INLINE, quiet=True)
    write_shards(str(out), cluster=INLINE, quiet=True)


@pytest.mark.parametrize("places", ["inline", "separate", "both"])
def test_detected_regions_go_out_as_vinvl_tsv_and_come_back(published: Path, tmp_path: Path, places: str) -> None:
    target, again = tmp_path / "vinvl", tmp_path / "again"
    export_shards(
        str(published),
        str(target),
        form="vinvl-tsv",
        features=places,
        cluster=INLINE,
        quiet=True,  # type: ignore[arg-type]
    )
    has_table = places != "inline"
    index = ["features.lineidx", "features.tsv", "imageid2idx.json"] if has_table else []
    assert sorted(exported(target)) == sorted(["export.json", *index, "predictions.lineidx", "predictions.tsv"])
    for name in ["predictions", *(["features"] if has_table else [])]:
        offsets, problem = stored_offsets(str(target / f"{name}.tsv"))
        assert problem is None and offsets is not None and len(offsets) == 11
    if has_table:
        [first] = [key for key, number in json.loads((target / "imageid2idx.json").read_text()).items() if number == 0]
        assert first == read_keys(Store.at(published), 0)[0]
        import_features(
            str(target / "features.tsv"),
            str(again),
            predictions=str(target / "predictions.tsv"),
            cluster=INLINE,
            quiet=True,
        )
    else:
        import_features(str(target / "predictions.tsv"), str(again), cluster=INLINE, quiet=True)
    one, two = stored_regions(published), stored_regions(again)
    assert list(one) == list(two) and len(one) == 11 and sum(len(facts.tags) for _, _, facts in one.values()) > 20
    for key, (features, boxes, facts) in one.items():
        assert (two[key][0] == features).all() and (two[key][1] == boxes).all()
        assert two[key][2] == facts  # tags, labels, scores, attributes and the image's size


@st.composite
def tables(draw: st.DrawFn) -> list[tuple[np.ndarray, tuple[int, int] | None, list[str] | None]]:
    """Images: [K, 2054] with geometry that a box has, an image size or none, gold tags or none."""
    images = []
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.integers(0, 4))
        seed = draw(st.integers(0, 2**32 - 1))
        random = np.random.default_rng(seed)
        corners = np.sort(random.uniform(0, 1, (count, 2, 2)), axis=1).reshape(count, 4).astype(np.float32)
        features = random.standard_normal((count, 2048)).astype(np.float32) * draw(
            st.sampled_from([1e-7, 1.0, 6e4 / 8])
        )
        table = np.concatenate([features, geometry(corners, None, None)], axis=1)
        size = draw(st.one_of(st.none(), st.tuples(st.integers(16, 4000), st.integers(16, 4000))))
        gold = draw(
            st.one_of(st.none(), st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=5), max_size=3))
        )
        images.append((table, size, gold))
    return images


@settings(max_examples=8)
@given(tables(), st.sampled_from(["inline", "separate", "both"]))
def test_import_export_import_gives_equal_regions(
    images: list[tuple[np.ndarray, tuple[int, int] | None, list[str] | None]], places: str
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        features, predictions, captions = (folder / f for f in ("features.tsv", "predictions.tsv", "c.jsonl"))
        with features.open("w") as one, predictions.open("w") as two, captions.open("w") as three:
            for number, (table, size, gold) in enumerate(images):
                print(f"im{number}\t{len(table)}\t{base64.b64encode(table.tobytes()).decode()}", file=one)
                facts = {
                    "objects": [
                        {"class": f"thing {n}", "conf": round(0.9 - n / 10, 3), "attributes": ["red"] * n}
                        for n in range(len(table))
                    ],
                    **({"image_w": size[0], "image_h": size[1]} if size else {}),
                    **({} if gold is None else {"gt_objects": [{"class": tag} for tag in gold]}),
                }
                print(f"im{number}\t{json.dumps(facts)}", file=two)
                print(json.dumps({"image": f"im{number}", "caption": "A dog."}), file=three)
        publish(features, captions, folder / "one", predictions=str(predictions))
        export_shards(
            str(folder / "one"),
            str(folder / "tsv"),
            form="vinvl-tsv",
            features=places,
            cluster=INLINE,
            quiet=True,  # type: ignore[arg-type]
        )
        if places == "inline":
            import_features(str(folder / "tsv/predictions.tsv"), str(folder / "two"), cluster=INLINE, quiet=True)
        else:
            import_features(
                str(folder / "tsv/features.tsv"),
                str(folder / "two"),
                predictions=str(folder / "tsv/predictions.tsv"),
                cluster=INLINE,
                quiet=True,
            )
        first, second = stored_regions(folder / "one"), stored_regions(folder / "two")
        assert list(first) == list(second) == [f"im{number}" for number in range(len(images))]
        for (table, size, gold), one, two in zip(images, first.values(), second.values(), strict=True):
            assert (one[0] == table[:, :2048].astype(np.float16)).all() and (two[0] == one[0]).all()
            assert (two[1] == one[1]).all() and two[2] == one[2]
            assert (two[2].width, two[2].height) == (size or (None, None))
            np.testing.assert_allclose(geometry(two[1], *(size or (None, None))), table[:, 2048:], atol=1e-6)
            assert two[2].gold_tags == (None if gold is None else tuple(tag.strip() for tag in gold if tag.strip()))


def test_an_export_goes_on_and_ends_in_the_same_bytes(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for form in ("webdataset", "vinvl-tsv"):
        whole, parts = tmp_path / f"{form}-whole", tmp_path / f"{form}-parts"
        export_shards(str(published), str(whole), form=form, features="both", cluster=INLINE, quiet=True)  # type: ignore[arg-type]
        write = Store.write_json

        def dying(store: Store, name: str, value: object, write=write) -> None:  # type: ignore[no-untyped-def]
            if name == "parts/00001.json":
                raise KeyboardInterrupt
            write(store, name, value)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "write_json", dying)
            with pytest.raises(KeyboardInterrupt):
                export_shards(str(published), str(parts), form=form, features="both", cluster=INLINE, quiet=True)  # type: ignore[arg-type]
        assert not json.loads((parts / "export.json").read_text())["finished"]
        assert not (parts / "predictions.tsv").exists()
        summary = export_shards(str(published), str(parts), form=form, features="both", cluster=INLINE, quiet=True)  # type: ignore[arg-type]
        assert (summary.shards_kept, summary.shards_written) == (1, 2)
        assert exported(parts) == exported(whole) and not (parts / "parts").exists()
        done = export_shards(str(published), str(parts), form=form, features="both", cluster=INLINE, quiet=True)  # type: ignore[arg-type]
        assert (done.shards_written, done.files, done.samples) == (0, summary.files, summary.samples)


def test_local_workers_write_the_same_bytes(published: Path, tmp_path: Path) -> None:
    for cluster in ("inline", "local"):
        options = ClusterOptions(cluster=cluster, workers=2)
        export_shards(str(published), str(tmp_path / cluster), form="vinvl-tsv", cluster=options, quiet=True)
    assert exported(tmp_path / "inline") == exported(tmp_path / "local")


def test_the_manifest_decides_which_generation_is_exported(data_set: Path, world, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    saved = {name: (data_set / name).read_bytes() for name in ("manifest.json", "index.parquet")}
    vocabulary = tmp_path / "id2phrase.json"
    vocabulary.write_text(json.dumps({"30522": ["ball", "red"]}))
    with ShardReader(str(data_set)) as reader:
        phrases = sum(len(caption.phrases) for sample in reader for caption in sample.captions)
    write_shards(str(data_set), vocab=str(vocabulary), cluster=INLINE, quiet=True)
    state = load_state(Store.at(data_set), "text")
    assert state is not None and state.generation == 1
    for name, data in saved.items():
        (data_set / name).write_bytes(data)  # as if the newer generation had not been published yet
    export_shards(str(data_set), str(tmp_path / "w"), form="webdataset", cluster=INLINE, quiet=True)
    tars = [str(path) for path in sorted((tmp_path / "w").glob("*.tar"))]
    records = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode())
    assert sum(len(caption["phrases"]) for record in records for caption in record["text.json"]["captions"]) == phrases
    assert phrases > 0


def test_what_cannot_be_exported_is_refused(published: Path, data_set: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with pytest.raises(IncompleteError, match=r"no manifest\. Run `mvptr-data write-shards"):
        export_shards(str(tmp_path / "nothing"), str(target), form="webdataset", cluster=INLINE, quiet=True)
    with pytest.raises(InputError, match="Formats are webdataset, vinvl-tsv"):
        export_shards(str(published), str(target), form="tfrecord", cluster=INLINE, quiet=True)  # type: ignore[arg-type]
    assert not target.exists()
    for occupied in (published, data_set / "plan"):
        with pytest.raises(InputError, match="no export"):
            export_shards(str(published), str(occupied), form="webdataset", cluster=INLINE, quiet=True)
    export_shards(str(published), str(target), form="webdataset", cluster=INLINE, quiet=True)
    with pytest.raises(ConfigurationMismatchError, match="format: 'webdataset' -> 'vinvl-tsv'"):
        export_shards(str(published), str(target), form="vinvl-tsv", cluster=INLINE, quiet=True)
    (target / "00001.tar").unlink()
    with pytest.raises(DamagedFileError, match=r"lacks 00001\.tar"):
        export_shards(str(published), str(target), form="webdataset", cluster=INLINE, quiet=True)
    with (data_set / "regions/00000.tar").open("r+b") as tar:
        tar.truncate(20_000)
    with pytest.raises(DamagedFileError, match="regions tar of shard 0 ends inside"):
        export_shards(str(data_set), str(tmp_path / "broken"), form="webdataset", cluster=INLINE, quiet=True)
    assert not list((tmp_path / "broken").glob("*.tar"))


def test_a_part_of_another_export_is_not_taken(published: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    summary = export_shards(str(published), str(target), form="webdataset", cluster=INLINE, quiet=True)
    store = Store.at(target)
    note = {"identity": "ours", "shard": 0, "samples": 4, "bytes": {"00000.tar": summary.files["00000.tar"]}}
    store.write_json("parts/00000.json", note)
    assert export_parts.read_note(store, 0, "ours") == note
    assert export_parts.read_note(store, 0, "theirs") is None
    store.write_json("parts/00000.json", note | {"bytes": {"00000.tar": 1}})
    assert export_parts.read_note(store, 0, "ours") is None
    (target / "parts/00000.json").write_text("{")
    assert export_parts.read_note(store, 0, "ours") is None


def test_the_commands_have_examples_and_work(published: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    for command in ("export", "import-tsv"):
        assert f"mvptr-data {command}" in run(main, [command, "--help"]).output
    arguments = ["export", str(published), str(tmp_path / "v"), "--format", "vinvl-tsv", "--features", "separate"]
    result = run(main, [*arguments, "--cluster", "inline"])
    assert result.exit_code == 0 and "11 samples in 5 files" in result.output, result.output
    shutil.rmtree(tmp_path / "v/logs")
    result = run(main, [*arguments, "--cluster", "inline"])
    assert result.exit_code == 0 and "has this export already: 11 samples" in result.output


@pytest.mark.parametrize("entry", ["parts/mine.txt", "parts/00000.json", "photos/a/b.jpg", "notes.txt", ".git/config"])
@pytest.mark.parametrize("form", ["webdataset", "vinvl-tsv"])
def test_a_folder_that_is_not_empty_is_no_target(published: Path, tmp_path: Path, entry: str, form: str) -> None:
    target = tmp_path / "target"
    (target / entry).parent.mkdir(parents=True)
    (target / entry).write_text("mine")
    with pytest.raises(InputError, match=r"not empty.*no export"):
        export_shards(str(published), str(target), form=form, cluster=INLINE, quiet=True)  # type: ignore[arg-type]
    assert [str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()] == [entry]
    assert (target / entry).read_text() == "mine"


def test_what_is_left_of_a_start_is_no_hindrance(published: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    for name in ("locks/export.json", "logs/export-1.log", ".export.json.12-abcd.tmp"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("{")
    export_shards(str(published), str(target), form="vinvl-tsv", cluster=INLINE, quiet=True)
    assert sorted(exported(target)) == ["export.json", "predictions.lineidx", "predictions.tsv"]


def test_only_files_of_the_export_are_removed(published: Path, tmp_path: Path) -> None:
    """In a target that is this export's, too, what a user has put there stays, also in `parts/`."""
    target = tmp_path / "target"

    def export() -> None:
        export_shards(str(published), str(target), form="vinvl-tsv", features="both", cluster=INLINE, quiet=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_shards_module, "_join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export()
    parts, theirs = target / "parts", {"mine.txt", "00009.json", "00001.mine.tsv", ".00001.draft.tmp"}
    assert len(list(parts.iterdir())) == 9
    for name in theirs:
        (parts / name).write_text("mine")
    (parts / ".00001.features.tsv.1-ab.tmp").write_text("left by a killed writer")
    export()
    assert {path.name for path in parts.iterdir()} == theirs
    export()
    assert {path.name for path in parts.iterdir()} == theirs
    for name in theirs:
        (parts / name).unlink()
    export()
    assert not parts.exists()


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_parts_are_removed_under_the_lock(published: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"

    def export() -> int:
        return export_shards(str(published), str(target), form="webdataset", cluster=INLINE, quiet=True).shards_written

    assert export() == 3
    with hold_lock(Store.at(target), "export"):
        assert export() == 0  # nothing is left to remove
        (target / "parts").mkdir()
        with pytest.raises(BusyError):
            export()
    assert export() == 0 and not (target / "parts").exists()


@pytest.mark.parametrize("form", ["webdataset", "vinvl-tsv"])
def test_a_full_disk_ends_the_export_and_keeps_what_is_done(published: Path, tmp_path: Path, form: str) -> None:
    whole, target = tmp_path / "whole", tmp_path / "target"
    summary = export_shards(str(published), str(whole), form=form, cluster=INLINE, quiet=True)  # type: ignore[arg-type]
    sizes = list(summary.files.values())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes) - 1, hard))  # the largest file meets a disk that is full
    try:
        with pytest.raises(OutputError, match=f"cannot write to {target}: {os.strerror(errno.EFBIG)}. Make room"):
            export_shards(str(published), str(target), form=form, cluster=INLINE, quiet=True)  # type: ignore[arg-type]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(target.rglob(".*"))
    export_shards(str(published), str(target), form=form, cluster=INLINE, quiet=True)  # type: ignore[arg-type]
    assert exported(target) == exported(whole)


def test_memory_is_no_place_for_several_processes(published: Path, tmp_path: Path) -> None:
    for out, target in ((str(published), "memory://export/out"), ("memory://export/set", str(tmp_path / "target"))):
        with pytest.raises(InputError, match=r"memory of one process.*--cluster inline"):
            export_shards(out, target, form="webdataset", quiet=True)
    assert not (tmp_path / "target").exists()
