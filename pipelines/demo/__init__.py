"""The whole way on a drawn world, measured against its truth.

1. draw      abstract scenes with captions                    world/
2. extract   regions by the bundled detector                  scenes/regions/
3. parse     captions to phrases, and the vocabulary          scenes/captions/, scenes/phrase_vocab.parquet
4. write     text field, index, manifest; verify all of it    scenes/
5. again     another world, with the first one's vocabulary   unseen/world/, unseen/scenes/
6. learn     both stages, a small model from fresh weights    training/, curves.png
7. look      samples, and phrases where the model finds them  pictures/
8. measure   the data set, and the model on unseen pictures   summary.json

    summary = run_demo("build/demo")

`data_set` does 1 to 5, `learning` 6, `measuring` 8; `truth` knows what was drawn.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from mvptr_data.errors import InputError
from mvptr_data.storage import Store
from pipelines.cluster import ClusterOptions
from pipelines.console import Reporter, reporting
from pipelines.demo.data_set import DrawnDataSet, published_world
from pipelines.demo.grounded_picture import draw_grounded_samples
from pipelines.demo.learning import DemoTraining, learn
from pipelines.demo.measuring import DataSummary, ModelSummary, measure_data, measure_model
from pipelines.demo.report import report_data, report_model
from pipelines.inspect_sample import draw_sample, load_sample
from pipelines.learning_curves import draw_curves

#: Pictures of its world that are drawn to be learned from, and of the other world to be measured on.
PICTURES, UNSEEN_PICTURES = 4000, 200
SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSummary:
    """What `summary.json` says."""

    data: DataSummary
    model: ModelSummary


def run_demo(
    directory: str,
    *,
    pictures: int = PICTURES,
    unseen: int = UNSEEN_PICTURES,
    seed: int = 0,
    training: DemoTraining | None = None,
    cluster: ClusterOptions | None = None,
    quiet: bool = False,
) -> DemoSummary:
    """Do all of it in the local folder `directory`; done again, it does only what is missing.

    The world to be measured on is that of `seed` + 1. Raises `InputError` for a URL, `ConfigurationMismatchError` where the
    folder holds another world or another training, `DamagedFileError` where a data set does not verify, and what the single
    steps raise.
    """
    cluster, store = cluster or ClusterOptions(), Store.at(directory)
    if not store.is_local:
        raise InputError(f"{directory} is a URL", "The world is drawn on disk: give a local folder.")
    started = time.monotonic()
    with reporting(quiet=quiet) as reporter:
        known = published_world(store.root, reporter, pictures, seed, cluster=cluster, quiet=quiet)
        reporter.keep_log(store, "demo")
        # Done again, it measures again; the seconds stay those of what was made.
        earlier = store.read_json(SUMMARY) if store.exists(SUMMARY) else {}
        data = measure_data(known, time.monotonic() - started)
        if "data" in earlier:
            data = replace(data, seconds=earlier["data"]["seconds"])
        if not store.exists(SUMMARY):
            store.write_json(SUMMARY, {"data": asdict(data)})
        report_data(reporter, known, data)
        new = published_world(
            store.path("unseen"), reporter, unseen, seed + 1, vocab=known.vocabulary, cluster=cluster, quiet=quiet
        )
        begun = time.monotonic()
        learned = learn(store, known, training or DemoTraining(), seed=seed, quiet=quiet)
        store.write("curves.png", draw_curves(learned.run))
        model = measure_model(learned, new, started=begun)
        if "model" in earlier:
            model = replace(model, seconds=earlier["model"]["seconds"])
        store.write_json(SUMMARY, {"data": asdict(data), "model": model.to_dict()})
        _draw_samples(store, reporter, known, list(known.truth)[:3])
        draw_grounded_samples(store, reporter, learned.model, new)
        report_model(reporter, store, learned.run, model)
    return DemoSummary(data=data, model=model)


def _draw_samples(store: Store, reporter: Reporter, known: DrawnDataSet, keys: Iterable[str]) -> None:
    for key in keys:
        name = f"pictures/{key}.png"
        with store.writing(name) as file:
            draw_sample(load_sample(known.root, key)).save(file, format="PNG")
        reporter.say(f"drawn: {store.path(name)}")
