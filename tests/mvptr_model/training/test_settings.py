from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvptr_data.errors import ConfigurationMismatchError, FormatVersionError, InputError
from mvptr_data.storage import Store
from mvptr_model.configuration import ModelConfiguration
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
        ("optimizer.betas=[0.9, 1.0]", "betas has 1.0. Give numbers from 0 and below 1"),
        ("seed=9223372036854775808", "Give a whole number from 0 to 9,223,372,036,854,775,807"),
        ("precision.initial_scale_power=128", "from 0 to 127"),
        ("precision.min_scale=2048", "min_scale is 2048. Give a whole number from 1 to 1,024"),
        ("batches.weights=[1, .inf]", "weights is inf"),
        ("model.preset=[paper]", "the settings cannot be used"),
        ("initial.model={a: 1}", r"\$.initial.model"),
        ("checkpoints.minutes=1:30", "Expected `float | null`, got `str`"),
        ("seed=!!python/object/apply:os.system [ls]", "is not YAML"),
        ("seed=!!bool foo", r"is not YAML \(KeyError: 'foo'\)"),
        ("seed=!!int ''", "is not YAML"),
        ("seed=!!timestamp foo", "is not YAML"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, change: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_settings(written(tmp_path, ""), [change])


EXTREMES = [2**63 - 1, 2**63, 2**64, 10**400, -1, 0, 1e308, 5e-324, math.inf, math.nan, "2", "", [], [1], {}, {0: 1}]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def keys(values: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Every key of every section, with the keys above it."""
    found = [(name, *inner) for name, value in values.items() if isinstance(value, dict) for inner in keys(value)]
    return [(name,) for name in values] + found


MODEL = msgspec.to_builtins(ModelConfiguration.preset("paper"))
STAGE = msgspec.to_builtins(StageSettings(stage=1, epochs=1))
KEYS = keys({**resolved(settings_of(LEAST)), "model": MODEL, "stages": {"0": STAGE, "1": STAGE}})


def use(key: tuple[str, ...], value: Any) -> None:
    """See that a value makes settings that can be stored, or is refused."""
    for name in reversed(key):
        value = {name: value}
    try:
        found = settings_of(LEAST, value)
    except InputError:
        return
    values = json.loads(json.dumps(resolved(found), allow_nan=False))
    assert settings_of(values) == found
    assert found.stage_seed(1) != found.stage_seed(2)


@given(st.sampled_from(KEYS), VALUES)
@settings(max_examples=200, deadline=None)
def test_any_value_is_a_setting_or_refused(key: tuple[str, ...], value: Any) -> None:
    use(key, value)


@pytest.mark.parametrize("value", EXTREMES, ids=lambda value: repr(value)[:20])
def test_extreme_values_are_settings_or_refused(value: Any) -> None:
    for key in KEYS:
        use(key, value)


def test_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    path = written(tmp_path, "stages: {0: {epochs: 010}, 1: {learning_rate: .5e-4}}\noptimizer: {clipping: 1_0.5}\n")
    found = read_settings(
        path, ["seed=0x1f", "batches.block_shards=0o17", "zero.bucket_size=2_000", "output=2026-11-21"]
    )
    assert [stage.epochs for stage in found.stages] == [10, 30]
    assert (found.stages[1].learning_rate, found.optimizer.clipping) == (5e-5, 10.5)
    assert (found.seed, found.batches.block_shards, found.zero.bucket_size) == (31, 15, 2000)
    assert found.output == "2026-11-21"
    with pytest.raises(InputError, match="Expected `int`, got `str`"):
        read_settings(path, ["batches.global_batch=1:04"])


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    twice = "batches: {global_batch: 64}\nseed: 1\nbatches: {accumulation: 2}\n"
    with pytest.raises(InputError, match=r"the key 'batches' is there already, in line 4 .* line 6"):
        read_settings(written(tmp_path, twice))
    with pytest.raises(InputError, match="the key '0' is there already"):
        read_settings(written(tmp_path, ""), ["stages={0: {epochs: 1}, '0': {epochs: 2}}"])


def test_aliases_are_refused(tmp_path: Path) -> None:
    lines = [f"&a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)]
    with pytest.raises(InputError, match=r"\*a0 is an alias: write out") as error:
        read_settings(written(tmp_path, f"log: [&a0 [x], {', '.join(lines)}]\n"))
    assert len(str(error.value)) < 500


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
