from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mvptr_data.errors import ConfigurationMismatchError, FormatVersionError, InputError
from mvptr_data.storage import Store
from mvptr_model.training.settings import PretrainSettings, StageSettings
from mvptr_model.training.settings_file import check_same_run, read_settings, resolved, settings_of, store_settings

LEAST: dict[str, Any] = {"data": ["coco"], "output": "run", "initial": {"bert": "bert-base-uncased"}}


def written(folder: Path, text: str) -> str:
    path = folder / "settings.yaml"
    path.write_text("data: [coco]\noutput: run\ninitial: {bert: bert-base-uncased}\n" + text)
    return str(path)


def test_the_defaults_are_the_papers() -> None:
    settings = settings_of(LEAST)
    assert settings.batches.global_batch == 1024
    assert [(stage.stage, stage.epochs, stage.learning_rate, stage.warm_up) for stage in settings.stages] == [
        (1, 15, 1e-4, 0.2),
        (2, 30, 1e-4, 0.2),
    ]
    optimizer, precision, zero = settings.optimizer, settings.precision, settings.zero
    assert (optimizer.epsilon, optimizer.weight_decay, optimizer.clipping) == (1e-8, 0.01, 10.0)
    scale = (precision.initial_scale_power, precision.scale_window, precision.hysteresis, precision.min_scale)
    assert scale == (10, 1000, 2, 1)
    assert (zero.stage, zero.bucket_size) == (2, 200_000_000)
    assert (settings.masking.words, settings.masking.tags, settings.masking.phrases) == (0.15, 0.25, 0.15)


def test_yaml_and_changes(tmp_path: Path) -> None:
    path = written(tmp_path, "optimizer: {epsilon: 1e-6, weight_decay: 1E-2}\nmodel: {layers: 3, losses: [vsc, mlm]}\n")
    changes = ["zero.bucket_size=2e8", "stages.1.learning_rate=5e-5", "model.dropout=0", "initial.word_pieces=v.txt"]
    settings = read_settings(path, [*changes, "batches.global_batch=64", "data=[a, b]", "model.layers=4"])
    assert (settings.optimizer.epsilon, settings.optimizer.weight_decay) == (1e-6, 0.01)
    assert settings.zero.bucket_size == 200_000_000
    assert [stage.learning_rate for stage in settings.stages] == [1e-4, 5e-5]
    configuration = settings.configuration(word_rows=7, phrase_rows=0)
    assert (configuration.layers, configuration.dropout, configuration.losses) == (4, 0.0, ("vsc", "mlm"))
    assert (settings.data, settings.batches.global_batch) == (("a", "b"), 64)
    assert (settings.initial.bert, settings.initial.word_pieces) == (None, "v.txt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("zero.bucket=1", r"no setting zero.bucket\. Known in zero: stage, bucket_size"),
        ("bathces.global_batch=1", "no setting bathces. Known: data, output"),
        ("stages.2.epochs=1", "no setting stages.2. Known in stages: 0, 1"),
        ("stages.0.epoch=1", "no setting stages.0.epoch. Known in stages.0: stage, epochs"),
        ("model.lairs=2", "no setting model.lairs. Known in model: preset, hidden_size"),
        ("model.word_rows=2", "model.word_rows is given"),
        ("model.preset=best", "preset is 'best'"),
        ("model.dropout=much", r"\$.dropout"),
        ("masking.seed=3", "no setting masking.seed"),
        ("masking.words=2", "masking probability of words is 2"),
        ("batches.global_batch=10", "cannot take equal parts of 8 streams"),
        ("batches.global_batch=many", r"\$.batches.global_batch"),
        ("batches.captions=all", r"\$.batches.captions"),
        ("batches.accumulation=0", "accumulation is 0"),
        ("precision.type=fp8", r"\$.precision.type"),
        ("optimizer.epsilon=.nan", "epsilon is nan"),
        ("optimizer.weight_decay=-1", "weight_decay is -1"),
        ("zero.stage=3", "zero.stage is 3"),
        ("stages=[]", "stages are "),
        ("stages=[{stage: 2, steps: 1}, {stage: 1, steps: 1}]", "stages are "),
        ("stages=[{stage: 1, steps: 1, epochs: 1}]", "Give one of the two"),
        ("stages=[{stage: 1}]", "Give one of the two"),
        ("stages=[{stage: 3, epochs: 1}]", "stage is 3"),
        ("stages=1", "stages is 1"),
        ("model.losses=[mlm]", "stage 1 has none of the losses mlm"),
        ("initial={bert: a, model: b}", "initial names bert and model"),
        ("initial={}", "initial names nothing"),
        ("output=s3://bucket/run", "Give a local folder"),
        ("data=[]", "data is"),
        ("data=coco", r"\$.data"),
        ("log=often", "log is 'often'"),
        ("seed=-1", "seed is -1"),
        ("checkpoints.keep=0", "keep is 0"),
        ("seed", "changes no setting"),
        ("a..b=1", "changes no setting"),
        ("seed={", "is not YAML"),
        ("seed=!!python/object/apply:os.system [ls]", "is not YAML"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, change: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_settings(written(tmp_path, ""), [change])


def test_files_that_hold_no_settings(tmp_path: Path) -> None:
    for text in ("", "- a\n", "a: [", "\x00"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(InputError):
            read_settings(str(tmp_path / "bad.yaml"))
    with pytest.raises(InputError, match="cannot read the settings"):
        read_settings(str(tmp_path / "none.yaml"))
    (tmp_path / "large.yaml").write_bytes(b"#" * (1 << 21))
    with pytest.raises(InputError, match="has more than"):
        read_settings(str(tmp_path / "large.yaml"))


def test_resolved_settings_are_the_settings() -> None:
    settings = settings_of(LEAST, {"batches": {"weights": [1, 2]}, "model": {"layers": 3, "dropout": 0.0}})
    values = json.loads(json.dumps(resolved(settings)))
    assert settings_of(values) == settings


def test_a_run_is_known_again(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    check_same_run(store, settings_of(LEAST))  # none is there
    first = settings_of(LEAST, {"stages": [{"stage": 1, "epochs": 2}]})
    store_settings(store, first)
    free = {"data": ["moved"], "output": "elsewhere", "log": {"steps": 5}, "checkpoints": {"minutes": 1}}
    check_same_run(store, settings_of(LEAST, {"stages": [{"stage": 1, "epochs": 2}], **free}))
    check_same_run(store, settings_of(LEAST, {"stages": [{"stage": 1, "epochs": 2}, {"stage": 2, "epochs": 9}]}))
    for change, said in (
        ({"stages": [{"stage": 1, "epochs": 3}]}, "epochs"),
        ({"batches": {"global_batch": 512}}, "batches.global_batch: 1024 -> 512"),
        ({"model": {"dropout": 0.0}}, "model.dropout: None -> 0.0"),
        ({"precision": {"type": "bf16"}}, "precision.type: 'fp32' -> 'bf16'"),
    ):
        with pytest.raises(ConfigurationMismatchError, match=said):
            check_same_run(store, settings_of(LEAST, {"stages": [{"stage": 1, "epochs": 2}]}, change))
    store.write_json("settings.json", {"version": 99})
    with pytest.raises(FormatVersionError, match="99"):
        check_same_run(store, first)


def test_stages_have_seeds_of_their_own() -> None:
    settings = settings_of(LEAST)
    seeds = {settings_of(LEAST, {"seed": seed}).stage_seed(stage) for seed in range(3) for stage in (1, 2)}
    assert len(seeds) == 6
    assert settings.stage_masking(2).seed == settings.stage_seed(2)
    assert all(0 <= seed < 1 << 63 for seed in seeds)


@pytest.mark.parametrize(("world", "accumulation", "micro"), [(1, 1, 1024), (8, 1, 128), (8, 4, 32)])
def test_micro_batches(world: int, accumulation: int, micro: int) -> None:
    settings: PretrainSettings = settings_of(LEAST, {"batches": {"accumulation": accumulation}})
    assert settings.batches.micro_batch(world) == micro


def test_the_length_of_a_stage() -> None:
    assert StageSettings(stage=1, epochs=3).length(7) == 21
    assert StageSettings(stage=1, steps=5).length(7) == 5
