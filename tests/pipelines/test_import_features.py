from __future__ import annotations

import base64
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from mvptr_data.dataset.locks import hold_lock
from mvptr_data.dataset.receipts import read_receipt
from mvptr_data.dataset.records import geometry
from mvptr_data.errors import ConfigurationMismatchError, InputError, OutputError
from mvptr_data.sources.captions import read_captions
from mvptr_data.storage import Store
from mvptr_model.stream.reader import ShardReader
from pipelines.cli import main
from pipelines.cluster import ClusterOptions
from pipelines.export_shards import export_shards
from pipelines.import_features import import_features
from pipelines.phrase_vocab import build_phrase_vocab
from pipelines.run_status import run_status
from pipelines.verify_shards import verify_shards
from pipelines.write_shards import write_shards

INLINE = ClusterOptions(cluster="inline")
WIDTH, HEIGHT, REGIONS = 640, 480, 3
NAMES = ("man", "dog", "red ball")


def vectors(number: int, count: int = REGIONS) -> np.ndarray:
    return np.random.default_rng(number).standard_normal((count, 2048)).astype("<f4")


def rects(number: int, count: int = REGIONS) -> np.ndarray:
    low = np.random.default_rng(number).uniform(0, 1, (count, 2)) * [WIDTH - 20, HEIGHT - 20]
    return np.concatenate([low, low + 15], axis=1).astype(np.float32)


def b64(array: np.ndarray) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode()


def features_line(name: str, number: int) -> str:
    table = np.concatenate([vectors(number), geometry(rects(number), WIDTH, HEIGHT)], axis=1)
    return f"{name}\t{REGIONS}\t{b64(table)}\n"


def objects(number: int, *, inline: bool = False) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"class": name, "conf": 0.9 - 0.1 * place, "rect": box.tolist(), "attributes": ["big"], "attr_scores": [0.5]}
        for place, (name, box) in enumerate(zip(NAMES, rects(number), strict=True))
    ]
    if inline:
        for item, vector in zip(found, vectors(number), strict=True):
            item["feature"] = b64(vector)
    return found


def predictions_line(name: str, number: int, *, inline: bool = False, **facts: Any) -> str:
    whole = {"image_h": HEIGHT, "image_w": WIDTH, "objects": objects(number, inline=inline), **facts}
    return f"{name}\t{json.dumps(whole)}\n"


def write_files(folder: Path, count: int) -> tuple[str, str]:
    """features.tsv and, in reverse order, predictions.tsv with gold tags, of `count` images."""
    features, predictions = folder / "features.tsv", folder / "predictions.tsv"
    features.write_text("".join(features_line(f"{number:04d}", number) for number in range(count)))
    lines = [
        predictions_line(f"{number:04d}", number, gt_objects=[{"class": "person"}]) for number in reversed(range(count))
    ]
    predictions.write_text("".join(lines))
    return str(features), str(predictions)


def digests(out: Path) -> dict[str, str]:
    """Of all files that promise to be the same whenever they are made."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.suffix in (".tar", ".parquet") or path.name == "plan.json"
    }


def finish(out: str, captions: Path) -> ShardReader:
    """The steps after an import, as they are after an extraction; the data set has to verify."""
    build_phrase_vocab([str(captions)], out, min_sentences=1, cluster=INLINE, quiet=True)
    write_shards(out, cluster=INLINE, quiet=True)
    assert verify_shards(out, quiet=True).findings == ()
    return ShardReader(out)


def write_captions(path: Path, names: list[str]) -> Path:
    rows = [{"image": name, "captions": ["A man throws a red ball.", "A dog."]} for name in names]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_features_and_predictions_become_a_data_set(tmp_path: Path) -> None:
    features, predictions = write_files(tmp_path, 5)
    out = str(tmp_path / "out")
    summary = import_features(
        features, out, predictions=predictions, split="train", samples_per_shard=2, cluster=INLINE, quiet=True
    )
    assert (summary.counts, summary.regions, summary.configuration["import"]["format"]) == (
        {"inputs": 5, "ok": 5},
        15,
        "features",
    )
    captions = write_captions(tmp_path / "captions.jsonl", [f"{number:04d}.jpg" for number in range(5)])
    with finish(out, captions) as reader:
        samples = list(reader)
    assert [sample.key for sample in samples] == [f"{number:04d}" for number in range(5)]
    for number, sample in enumerate(samples):
        assert (sample.features == vectors(number).astype(np.float16)).all()
        assert (sample.boxes == rects(number)).all()
        np.testing.assert_allclose(sample.geometry, geometry(rects(number), WIDTH, HEIGHT), atol=1e-6)
        facts = sample.regions
        assert (facts.width, facts.height, facts.tags, facts.gold_tags) == (WIDTH, HEIGHT, NAMES, ("person",))
        assert facts.scores == (0.9, 0.8, 0.7) and facts.attributes == (("big",),) * 3
        assert [caption.text for caption in sample.captions] == ["A man throws a red ball.", "A dog."]
        assert sample.split == "train"
        assert sample.image_id == int.from_bytes(hashlib.sha256(sample.key.encode()).digest()[:8], "big")


@pytest.mark.parametrize("form", ["features", "oscar", "predictions", "mvptr", "bare list"])
def test_every_form_gives_the_same_features(tmp_path: Path, form: str) -> None:
    path, number = tmp_path / "x.tsv", 7
    tables = {
        "features": features_line("a", number),
        "oscar": "a\t"
        + json.dumps({"num_boxes": REGIONS, "features": features_line("a", number).split("\t")[2].strip()})
        + "\n",
        "predictions": predictions_line("a", number, inline=True),
        "mvptr": "a\t"
        + json.dumps({"feature": features_line("a", number).split("\t")[2].strip(), "predictions": NAMES})
        + "\n",
        "bare list": f"a\t{json.dumps(objects(number, inline=True))}\n",
    }
    path.write_text(tables[form])
    (tmp_path / "hw.tsv").write_text(f"a\t{HEIGHT} {WIDTH}\n")
    sizes = str(tmp_path / "hw.tsv") if form == "bare list" else None
    out = str(tmp_path / "out")
    import_features(str(path), out, sizes=sizes, default_tag="object", cluster=INLINE, quiet=True)
    with finish(out, write_captions(tmp_path / "c.jsonl", ["a"])) as reader:
        sample = reader[0]
    assert (sample.features == vectors(number).astype(np.float16)).all()
    np.testing.assert_allclose(sample.geometry, geometry(rects(number), WIDTH, HEIGHT), atol=1e-6)
    assert (sample.regions.width is None) == (form in ("features", "oscar", "mvptr"))
    assert sample.regions.tags == (("object",) * 3 if form in ("features", "oscar") else NAMES)


def test_every_bad_line_is_a_row_and_the_rest_is_imported(tmp_path: Path) -> None:
    def changed(old: str, new: str) -> str:
        return predictions_line("x", 1, inline=True).replace(old, new, 1).partition("\t")[2]

    huge = vectors(1)
    huge[0, 0] = 1e6
    lines = {
        "good": ("ok", predictions_line("", 1, inline=True)[1:]),
        "not-json": ("broken_record", "{\n"),
        "nan": ("broken_record", changed("0.9", "NaN")),
        "cut": ("broken_record", changed('"feature": "', '"feature": "AAAA')),
        "base64": ("broken_record", changed('"feature": "', '"feature": "****')),
        "overflow": ("broken_record", changed(b64(vectors(1)[0]), b64(huge[0]))),
        "leaves": ("broken_record", changed('"image_w": 640', '"image_w": 64')),
        "surrogate": ("broken_record", changed('"man"', '"\\ud800"')),
        "../up": ("unsafe_key", "[]\n"),
        "crlf": ("ok", predictions_line("", 2, inline=True)[1:].replace("\n", "\r\n")),
        "none": ("ok", '{"objects": []}\n'),
    }
    text = "".join(f"{name}\t{body}" for name, (_, body) in lines.items())
    path = tmp_path / "predictions.tsv"
    path.write_bytes(text.encode() + b"\n\nno tab at all\n" + f"good\t{lines['good'][1]}".encode())
    out = str(tmp_path / "out")
    summary = import_features(str(path), out, samples_per_shard=5, cluster=INLINE, quiet=True)
    rows = [row for shard in range(3) for row in pq.read_table(f"{out}/regions/{shard:05d}.parquet").to_pylist()]
    found = {row["key"]: row["error_class"] or row["status"] for row in rows[:-1]}
    wanted = {name: fate for name, (fate, _) in lines.items()} | {"predictions.tsv#14": "broken_record"}
    assert found == wanted
    assert (rows[-1]["key"], rows[-1]["error_class"]) == ("good", "duplicate_key")
    assert all(row["message"] for row in rows if row["status"] == "fault")
    assert all(row["sha256"] is None for row in rows)
    assert dict(summary.counts) == {"inputs": 13, "ok": 3, "broken_record": 8, "unsafe_key": 1, "duplicate_key": 1}
    with finish(out, write_captions(tmp_path / "c.jsonl", ["good", "crlf", "none"])) as reader:
        assert [sample.key for sample in reader] == ["good", "crlf", "none"]


def test_numbers_of_coco_meet_its_captions(tmp_path: Path) -> None:
    """VinVL's files name COCO's images by number; so can `--caption-key id`."""
    (tmp_path / "x.tsv").write_text(predictions_line("285", 1, inline=True))
    coco = {
        "images": [{"id": 285, "file_name": "000000000285.jpg"}],
        "annotations": [{"id": 1, "image_id": 285, "caption": "A man throws a red ball."}],
    }
    (tmp_path / "captions.json").write_text(json.dumps(coco))
    [caption] = read_captions(str(tmp_path / "captions.json"), caption_key="id")
    assert caption.key == "285"
    out = str(tmp_path / "out")
    import_features(str(tmp_path / "x.tsv"), out, cluster=INLINE, quiet=True)
    build_phrase_vocab(
        [str(tmp_path / "captions.json")], out, min_sentences=1, caption_key="id", cluster=INLINE, quiet=True
    )
    assert write_shards(out, cluster=INLINE, quiet=True).samples == 1


@pytest.mark.parametrize("postprocess", ["per_class", "class_agnostic"])
def test_what_the_vinvl_detector_gave_on_photographs(reference, tmp_path: Path, postprocess: str) -> None:  # type: ignore[no-untyped-def]
    """Its own predictions do not say how large an image is; features with geometry, or a file of sizes, do."""
    arrays = np.load(reference("data/vinvl/reference_outputs.npz"))
    names = json.loads(reference("data/vinvl/label_map.json").read_text())
    classes, adjectives = (
        {number: name for name, number in names[f"{what}_to_idx"].items()} for what in ("label", "attribute")
    )
    photos = sorted({name.partition("/")[0] for name in arrays.files})
    features, predictions, sizes = (tmp_path / name for name in ("features.tsv", "predictions.tsv", "hw.tsv"))
    expected = {}
    with features.open("w") as one, predictions.open("w") as two, sizes.open("w") as three:
        for photo in photos:
            width, height = map(int, arrays[f"{photo}/common/image_size_wh"])
            boxes, labels, scores, vector, adjective, strength = (
                arrays[f"{photo}/{postprocess}/{what}"]
                for what in ("boxes", "labels", "scores", "features", "attribute_labels", "attribute_scores")
            )
            table = np.concatenate([vector, geometry(boxes, width, height)], axis=1)
            found = [
                {
                    "rect": boxes[place].tolist(),
                    "bbox_id": place,
                    "class": classes[int(labels[place])],
                    "conf": float(scores[place]),
                    "feature": b64(vector[place]),
                    "attributes": [adjectives[int(n)] for n in adjective[place][strength[place] > 0]],
                    "attr_scores": strength[place][strength[place] > 0].tolist(),
                }
                for place in range(len(boxes))
            ]
            print(f"{photo}\t{len(boxes)}\t{b64(table)}", file=one)
            print(f"{photo}\t{json.dumps({'objects': found, 'relations': None})}", file=two)
            print(f'{photo}\t[{{"height": {height}, "width": {width}}}]', file=three)
            expected[photo] = (boxes, vector, width, height, [item["class"] for item in found])
    captions = write_captions(tmp_path / "c.jsonl", photos)
    for number, options in enumerate(({"predictions": str(predictions)}, {"sizes": str(sizes)})):
        out = str(tmp_path / f"out{number}")
        source = str(features) if "predictions" in options else str(predictions)
        import_features(source, out, cluster=INLINE, quiet=True, **options)  # type: ignore[arg-type]
        with finish(out, captions) as reader:
            samples = {sample.key: sample for sample in reader}
        assert list(samples) == photos and len(photos) == 2
        for photo, (boxes, vector, width, height, tags) in expected.items():
            sample = samples[photo]
            assert (sample.regions.width, sample.regions.height) == (width, height)
            assert (sample.features == vector.astype(np.float16)).all() and list(sample.regions.tags) == tags
            np.testing.assert_allclose(sample.boxes, boxes, atol=1e-3)
            np.testing.assert_allclose(sample.geometry, geometry(boxes, width, height), atol=1e-6)
            assert any(sample.regions.attributes)


def test_unusable_input_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    features, predictions = write_files(tmp_path, 3)
    narrow = tmp_path / "narrow.tsv"
    narrow.write_text(f"a\t{REGIONS}\t{b64(vectors(1))}\n")
    no_size = tmp_path / "no_size.tsv"
    no_size.write_text(f"a\t{json.dumps(objects(1, inline=True))}\n")
    out = tmp_path / "out"
    for path, options, reason in (
        (str(tmp_path / "gone.tsv"), {}, "no file"),
        (features, {}, "3 of 3 regions have no class.*--predictions"),
        (predictions, {}, "no features"),
        (str(narrow), {"default_tag": "object"}, "no boxes"),
        (str(no_size), {}, "image's size is not known.*--sizes"),
        (features, {"form": "vinvl"}, "Known are features, predictions, mvptr"),
        (features, {"form": "mvptr"}, "not JSON"),
        (features, {"default_tag": " "}, "default tag"),
        (features, {"default_tag": "\udcff"}, "default tag '.udcff' is not UTF-8"),
        (features, {"default_tag": "object", "split": "\udcff"}, "split '.udcff' is not UTF-8"),
        (features, {"predictions": features}, "not predictions"),
        (str(no_size), {"predictions": predictions}, "Leave --predictions out"),
    ):
        with pytest.raises(InputError, match=reason):
            import_features(path, str(out), cluster=INLINE, quiet=True, **options)  # type: ignore[arg-type]
        assert not out.exists(), reason


def test_an_import_goes_on_and_is_not_mixed_with_another(tmp_path: Path) -> None:
    features, predictions = write_files(tmp_path, 6)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for out in (whole, parts):
        import_features(features, str(out), predictions=predictions, samples_per_shard=2, cluster=INLINE, quiet=True)
    (parts / "regions/00001.json").unlink()
    (parts / "regions/00002.tar").unlink()
    again = import_features(
        features, str(parts), predictions=predictions, samples_per_shard=2, cluster=INLINE, quiet=True
    )
    assert (again.shards_written, again.shards_kept) == (2, 1)
    assert digests(parts) == digests(whole) and len(digests(whole)) == 10
    with pytest.raises(ConfigurationMismatchError, match=r"import\.predictions: True -> False"):
        import_features(features, str(parts), default_tag="x", samples_per_shard=2, cluster=INLINE, quiet=True)
    with pytest.raises(ConfigurationMismatchError, match="default_tag: None -> 'x'"):
        import_features(
            features,
            str(parts),
            predictions=predictions,
            default_tag="x",
            samples_per_shard=2,
            cluster=INLINE,
            quiet=True,
        )
    with Path(features).open("a") as file:
        file.write(features_line("more", 1))
    with pytest.raises(ConfigurationMismatchError, match="bytes: planned"):
        import_features(features, str(parts), predictions=predictions, samples_per_shard=2, cluster=INLINE, quiet=True)


def test_a_stale_index_is_named_and_not_used(tmp_path: Path) -> None:
    (tmp_path / "features.tsv").write_text("".join(features_line(str(number), number) for number in range(4)))
    index = tmp_path / "features.lineidx"
    for content, said in (("0\n7\n", True), (None, False)):
        if content is None:
            content, position = "", 0
            for line in (tmp_path / "features.tsv").read_bytes().splitlines(keepends=True):
                content += f"{position}\n"
                position += len(line)
        index.write_text(content)
        out = tmp_path / f"out{said}"
        result = CliRunner().invoke(
            main,
            ["import-tsv", str(tmp_path / "features.tsv"), str(out), "--default-tag", "object", "--cluster", "inline"],
        )
        assert result.exit_code == 0 and ("cannot be used" in result.output) == said, result.output
    assert digests(tmp_path / "outTrue") == digests(tmp_path / "outFalse")


def test_sizes_of_other_images_are_no_secret(tmp_path: Path) -> None:
    """Boxes stay in 0..1 then, which nobody who gave a file of sizes expects."""
    (tmp_path / "features.tsv").write_text(features_line("a", 1))
    for name, said in (("a", False), ("b", True)):
        (tmp_path / "hw.tsv").write_text(f"{name}\t{HEIGHT} {WIDTH}\n")
        files = [str(tmp_path / part) for part in ("features.tsv", f"out-{name}", "hw.tsv")]
        command = ["import-tsv", *files[:2], "--sizes", files[2], "--default-tag", "object", "--cluster", "inline"]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0
        assert ("hw.tsv has a size for none of the first 1 lines" in result.output) == said, result.output


def test_files_and_data_sets_behind_urls(tmp_path: Path) -> None:
    features, predictions = write_files(tmp_path, 4)
    for name in (features, predictions):
        with fsspec.open(f"memory://import/{Path(name).name}", "wb") as file:
            file.write(Path(name).read_bytes())
    out = "memory://import-out/set"
    urls = [f"memory://import/{name}.tsv" for name in ("features", "predictions")]
    import_features(urls[0], out, predictions=urls[1], samples_per_shard=3, cluster=INLINE, quiet=True)
    with finish(out, write_captions(tmp_path / "c.jsonl", ["0001", "0003"])) as reader:
        assert [sample.key for sample in reader] == ["0001", "0003"]
        assert (reader[1].features == vectors(3).astype(np.float16)).all()
    export_shards(out, "memory://import-out/tsv", form="vinvl-tsv", cluster=INLINE, quiet=True)
    import_features("memory://import-out/tsv/predictions.tsv", str(tmp_path / "back"), cluster=INLINE, quiet=True)
    with finish(str(tmp_path / "back"), tmp_path / "c.jsonl") as reader:
        assert (reader[0].boxes == rects(1)).all()


def test_memory_is_no_place_for_several_processes(tmp_path: Path) -> None:
    features, predictions = write_files(tmp_path, 1)
    with pytest.raises(InputError, match=r"memory of one process.*--cluster inline"):
        import_features("memory://import/none.tsv", str(tmp_path / "out"), quiet=True)
    with pytest.raises(InputError, match="memory of one process"):
        import_features(features, "memory://import-out/none", predictions=predictions, quiet=True)
    assert not (tmp_path / "out").exists()


def test_folders_with_two_colons_are_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in::1").mkdir()
    features, predictions = write_files(tmp_path / "in::1", 3)
    monkeypatch.chdir(tmp_path)
    import_features("in::1/features.tsv", "c/out::1", predictions="in::1/predictions.tsv", cluster=INLINE, quiet=True)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*")} == {"c", "in::1"}
    assert [path.name for path in Path("c").iterdir()] == ["out::1"]
    import_features(features, "plain", predictions=predictions, cluster=INLINE, quiet=True)
    assert digests(Path("c/out::1")).items() >= {
        (name, sha256) for name, sha256 in digests(Path("plain")).items() if name.startswith("regions/")
    }


def test_a_full_disk_ends_the_import_and_keeps_what_is_done(tmp_path: Path) -> None:
    features, predictions = write_files(tmp_path, 5)  # shards of 2, 2 and 1: the last is smaller
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    out = tmp_path / "out"

    def run(target: Path) -> None:
        import_features(features, str(target), predictions=predictions, samples_per_shard=2, cluster=INLINE, quiet=True)

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OutputError, match=rf"cannot write to {out}: .* finished shards are kept"):
            run(out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (out / "regions").iterdir()] == ["field.json"]
    run(out)
    run(tmp_path / "undisturbed")
    assert digests(out) == digests(tmp_path / "undisturbed")


def test_the_status_of_an_import_has_a_rate(tmp_path: Path) -> None:
    features, predictions = write_files(tmp_path, 4)
    out = str(tmp_path / "out")
    import_features(features, out, predictions=predictions, samples_per_shard=2, cluster=INLINE, quiet=True)
    receipt = read_receipt(Store.at(out), "regions", 0)
    assert receipt is not None and set(receipt.environment) >= {"finished", "host", "python", "machine"}
    (tmp_path / "out/regions/00001.json").unlink()
    store = Store.at(out)
    with hold_lock(store, "regions"):  # as if a run were at work for a minute; receipts tell whole seconds
        lock = store.read_json("locks/regions.json")
        store.write_json("locks/regions.json", {**lock, "since": lock["since"] - 60})
        status = run_status(out)
    assert status.inputs_done == 2 and status.rate is not None and status.seconds_left is not None


def test_the_command_says_what_was_wrong(tmp_path: Path) -> None:
    features, predictions = write_files(tmp_path, 2)
    command = ["import-tsv", features, str(tmp_path / "out"), "--cluster", "inline"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1 and "--predictions" in result.output and "Traceback" not in result.output
    result = CliRunner().invoke(main, [*command, "--predictions", predictions])
    assert result.exit_code == 0 and "2 of 2 images have regions (6)" in result.output, result.output


def test_killed_client_and_local_workers_end_in_the_same_bytes(tmp_path: Path) -> None:
    count = 200  # more shards than a run can finish before it is killed
    features, predictions = write_files(tmp_path, count)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    import_features(
        features, str(undisturbed), predictions=predictions, samples_per_shard=1, cluster=INLINE, quiet=True
    )
    command = [
        *(sys.executable, "-m", "pipelines.cli", "import-tsv", features, str(killed)),
        *("--predictions", predictions, "--samples-per-shard", "1", "--workers", "2"),
    ]

    def receipts() -> int:
        return sum(path.stem.isdigit() for path in (killed / "regions").glob("*.json"))

    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 120
        while receipts() < 2:
            assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and 2 <= receipts() < count, "the run ended before it was killed"
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "going on with the stored plan" in again.stderr
    assert digests(killed) == digests(undisturbed)
