"""Ready-made features in and out: `import-tsv` and `export` beside the few lines of plain Python that do the same work.

Shapes: K = 50 regions an image.

The plain lines decode base64, round to float16 and write a tar with the standard library, or read a tar and write base64 and
JSON; they check nothing and keep no row, digest or receipt. Seconds are of the CPU: the disk is not what is measured.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import arguments, best_rates, compared, report

from mvptr_data.dataset.records import geometry
from pipelines.cluster import ClusterOptions
from pipelines.export_shards import export_shards
from pipelines.import_features import import_features
from pipelines.phrase_vocab import build_phrase_vocab
from pipelines.write_shards import write_shards

INLINE = ClusterOptions(cluster="inline")
REGIONS, WIDTH, HEIGHT = 50, 640, 480


def encoded(array: np.ndarray) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode()


def write_inputs(folder: Path, images: int) -> None:
    """`features.tsv`, `predictions.tsv` with features in it, and a caption for each image."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((REGIONS, 2048)).astype(np.float32)
    with (
        (folder / "features.tsv").open("w") as features,
        (folder / "predictions.tsv").open("w") as predictions,
        (folder / "captions.jsonl").open("w") as captions,
    ):
        for number in range(images):
            low = random.uniform(0, 0.8, (REGIONS, 2))
            boxes = (np.concatenate([low, low + 0.15], axis=1) * [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(np.float32)
            table = np.concatenate([vectors, geometry(boxes, WIDTH, HEIGHT)], axis=1)
            print(number, REGIONS, encoded(table), sep="\t", file=features)
            objects = [
                {"class": "dog", "conf": 0.9 - place / 100, "rect": box.tolist(), "feature": encoded(vector)}
                for place, (box, vector) in enumerate(zip(boxes, vectors, strict=True))
            ]
            print(
                number,
                json.dumps({"image_h": HEIGHT, "image_w": WIDTH, "objects": objects}),
                sep="\t",
                file=predictions,
            )
            print(json.dumps({"image": str(number), "caption": "A dog."}), file=captions)


def put(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def plain_import_features(source: Path, target: Path) -> None:
    with source.open() as lines, tarfile.open(target, "w") as archive:
        for line in lines:
            key, count, text = line.split("\t")
            table = np.frombuffer(base64.b64decode(text), "<f4").reshape(int(count), -1)
            put(archive, f"{key}.features.npy", npy(table[:, :2048].astype(np.float16)))
            put(archive, f"{key}.boxes.npy", npy(table[:, 2048:2052]))


def plain_import_predictions(source: Path, target: Path) -> None:
    with source.open() as lines, tarfile.open(target, "w") as archive:
        for line in lines:
            key, text = line.split("\t")
            facts = json.loads(text)
            vectors = [np.frombuffer(base64.b64decode(item.pop("feature")), "<f4") for item in facts["objects"]]
            put(archive, f"{key}.features.npy", npy(np.stack(vectors).astype(np.float16)))
            put(archive, f"{key}.boxes.npy", npy(np.array([item["rect"] for item in facts["objects"]], np.float32)))
            put(archive, f"{key}.regions.json", json.dumps(facts).encode())


def plain_export_predictions(source: Path, target: Path) -> None:
    with tarfile.open(source) as archive, target.open("w") as out:
        found: dict[str, bytes] = {}
        for member in archive:
            name = member.name.partition(".")[2]
            found[name] = archive.extractfile(member).read()  # type: ignore[union-attr]
            if name != "regions.json":
                continue
            boxes, vectors = (np.load(io.BytesIO(found[part])) for part in ("boxes.npy", "features.npy"))
            facts = json.loads(found[name])
            objects = [
                {"class": tag, "conf": score, "rect": box.tolist(), "feature": encoded(vector)}
                for tag, score, box, vector in zip(facts["tags"], facts["scores"], boxes, vectors, strict=True)
            ]
            print(member.name.partition(".")[0], json.dumps({"objects": objects}), sep="\t", file=out)


def published(folder: Path) -> Path:
    """The predictions as a data set that can be exported."""
    out = folder / "published"
    import_features(str(folder / "predictions.tsv"), str(out), cluster=INLINE, quiet=True)
    build_phrase_vocab([str(folder / "captions.jsonl")], str(out), min_sentences=1, cluster=INLINE, quiet=True)
    write_shards(str(out), cluster=INLINE, quiet=True)
    return out


def main() -> None:
    options = arguments(__doc__).parse_args()
    images = 40 if options.quick else 600
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, images)
        data_set, out = published(folder), folder / "out"

        def ours(action: Callable[..., object], *arguments: str, **rest: object) -> Callable[[], object]:
            def run() -> None:
                shutil.rmtree(out, ignore_errors=True)
                action(*arguments, str(out), cluster=INLINE, quiet=True, **rest)

            return run

        def plain(action: Callable[[Path, Path], None], source: Path) -> Callable[[], object]:
            return lambda: action(source, folder / "plain")

        tables = {form: folder / f"{form}.tsv" for form in ("features", "predictions")}
        shard = data_set / "regions/00000.tar"
        jobs = {
            "features in, plain Python": plain(plain_import_features, tables["features"]),
            "features in, import-tsv": ours(import_features, str(tables["features"]), default_tag="object"),
            "predictions in, plain Python": plain(plain_import_predictions, tables["predictions"]),
            "predictions in, import-tsv": ours(import_features, str(tables["predictions"])),
            "predictions out, plain Python": plain(plain_export_predictions, shard),
            "predictions out, export": ours(export_shards, str(data_set), form="vinvl-tsv"),
            "WebDataset out, export": ours(export_shards, str(data_set), form="webdataset"),
        }
        sizes = [tables["features"].stat().st_size] * 2 + [tables["predictions"].stat().st_size] * 4
        sizes.append(shard.stat().st_size)
        rates = best_rates(
            {job: (run, size / 1e6) for (job, run), size in zip(jobs.items(), sizes, strict=True)},
            rounds=1 if options.quick else 3,
            clock=time.process_time,
        )
    peers = {job: f"{job.partition(',')[0]}, plain Python" for job in jobs if "plain" not in job and "Web" not in job}
    report(f"{images} images of {REGIONS} regions, CPU seconds", compared(rates, "MB/s", peers), options.json)


if __name__ == "__main__":
    main()
