"""Whole runs in this process: a world of one rank, with DeepSpeed on gloo."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from transformers import BertConfig, BertForPreTraining

from mvptr_data.dataset.locks import hold_lock
from mvptr_data.errors import BusyError, ConfigurationMismatchError, DamagedFileError, InputError, MvptrError
from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store, digest
from mvptr_model.saved_model import load_model
from mvptr_model.training.checkpoints import names
from mvptr_model.training.log import read_log
from mvptr_model.training.pretrain import pretrain
from mvptr_model.training.processes import StoppedError
from tests.mvptr_model.training.conftest import Settings
from tests.mvptr_model.training.curve import Heard, curve, places, weights

TERMINATE = {number: lambda number=number: os.kill(os.getpid(), number) for number in (signal.SIGTERM, signal.SIGINT)}


#: Precision and ZeRO stage; each alone in the quick suite.
KINDS = [("fp32", 0), ("bf16", 1), ("fp16", 2)]
OTHERS = [("fp32", 1), ("fp32", 2), ("bf16", 0), ("bf16", 2), ("fp16", 0), ("fp16", 1)]


@pytest.mark.parametrize(
    ("precision", "zero"), [*KINDS, *(pytest.param(*kind, marks=pytest.mark.slow) for kind in OTHERS)]
)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(small: Settings, precision: str, zero: int) -> None:
    changes = {
        "precision": {"type": precision},
        "zero": {"stage": zero},
        "batches": {"global_batch": 16, "accumulation": 2},
    }
    whole, broken = small("whole", **changes), small("broken", **changes)
    pretrain(whole)
    # Heard of while a step is told, and answered after the next one.
    at = {(1, 2): TERMINATE[signal.SIGTERM], (2, 3): TERMINATE[signal.SIGINT]}
    for number, name in ((signal.SIGTERM, "stage-1-step-00000003"), (signal.SIGINT, "stage-2-step-00000004")):
        with pytest.raises(StoppedError, match=name) as stop:
            pretrain(broken, listener=Heard(at))
        at.pop((1, 2), None)
        assert stop.value.exit_code == 128 + number
    heard = Heard()
    pretrain(broken, listener=heard)
    assert "stage 2: 4 of 6" in heard.lines
    assert curve(broken.output) == curve(whole.output)
    assert places(whole.output) == [(1, step) for step in range(1, 8)] + [(2, step) for step in range(1, 7)]
    assert weights(broken.output) == weights(whole.output)


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [
        ("fp32", 1e-5),
        pytest.param("bf16", 2e-2, marks=pytest.mark.slow),
        pytest.param("fp16", 2e-3, marks=pytest.mark.slow),
    ],
)
def test_zero_changes_nothing_but_where_things_are(small: Settings, precision: str, tolerance: float) -> None:
    runs = []
    for zero in (0, 1, 2):
        changes = {"precision": {"type": precision}, "zero": {"stage": zero}, "stages": [{"stage": 2, "steps": 4}]}
        settings = small(str(zero), **changes)
        pretrain(settings)
        runs.append([record["loss"] for record in curve(settings.output)])
    for run in runs[1:]:
        assert run == pytest.approx(runs[0], abs=tolerance)


def test_each_stage_alone_is_both_in_one_command(small: Settings) -> None:
    both, first = small("both"), small("first", stages=[{"stage": 1, "steps": 7, "learning_rate": 1e-3}])
    pretrain(both)
    folder = pretrain(first)
    second = small("second", stages=[{"stage": 2, "steps": 6, "learning_rate": 1e-3}], initial={"model": str(folder)})
    pretrain(second)
    assert curve(first.output) + curve(second.output) == curve(both.output)
    assert weights(second.output) == weights(both.output)
    # A stage may be added to a run.
    added = small("first")
    pretrain(added)
    assert curve(added.output) == curve(both.output)


def test_what_a_stage_does_not_learn_stays_as_it_was(small: Settings) -> None:
    settings = small(stages=[{"stage": 1, "steps": 3}], precision={"type": "bf16"})
    pretrain(settings)
    before, after = (load_model(Path(settings.output) / name).model.state_dict() for name in ("initial", "stage-1"))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {"logit_scale", "bert.embeddings.word_embeddings.weight", "half_mlm.bias"} <= changed
    assert not [name for name in changed if name.startswith(("bert.mul_encoder", "bert.pooler", "cls."))]
    assert all(value.dtype == torch.float32 for value in after.values())


def test_a_finished_run_is_not_made_again(small: Settings) -> None:
    settings = small()
    pretrain(settings)
    before = (Path(settings.output) / "log.jsonl").stat().st_mtime_ns
    heard = Heard()
    assert pretrain(settings, listener=heard) == Path(settings.output) / "stage-2"
    assert heard.lines == []
    assert (Path(settings.output) / "log.jsonl").stat().st_mtime_ns == before
    assert not dist.is_initialized()


def test_a_damaged_checkpoint_is_passed_over(small: Settings) -> None:
    changes = {"stages": [{"stage": 1, "steps": 8}], "checkpoints": {"steps": 2, "minutes": None}}
    whole, broken = small("whole", **changes), small("broken", **changes)
    pretrain(whole)
    with pytest.raises(StoppedError):
        pretrain(broken, listener=Heard({(1, 6): TERMINATE[signal.SIGTERM]}))
    output = Path(broken.output)
    assert [name[-1] for name in names(output)] == ["4", "6", "7"]
    missing, flipped = (next((output / "checkpoints" / name / "engine").glob("zero*")) for name in names(output)[1:])
    missing.unlink()
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    (output / "checkpoints" / ".stage-1-step-00000009.tmp" / "engine").mkdir(parents=True)
    heard = Heard()
    pretrain(broken, listener=heard)
    assert [line.split(":")[0] for line in heard.lines[:2]] == [f"passed over stage-1-step-0000000{n}" for n in (7, 6)]
    assert "stage 1: 4 of 8" in heard.lines
    assert curve(broken.output) == curve(whole.output)


def test_one_may_go_back_to_a_checkpoint(small: Settings) -> None:
    settings = small(checkpoints={"steps": 3, "minutes": None})
    pretrain(settings)
    expected, sha256 = curve(settings.output), weights(settings.output)
    output = Path(settings.output)
    assert names(output) == ["stage-1-step-00000003", "stage-1-step-00000006", "stage-2-step-00000003"]
    heard = Heard()
    pretrain(settings, resume=str(output / "checkpoints" / "stage-1-step-00000003"), listener=heard)
    assert [line for line in heard.lines if ": " in line and " of " in line] == ["stage 1: 3 of 7", "stage 2: 0 of 6"]
    assert curve(output) == expected
    assert weights(output) == sha256
    with pytest.raises(InputError, match="is no checkpoint of"):
        pretrain(settings, resume=str(output / "checkpoints" / "stage-1-step-00000004"))
    shutil.copytree(output / "checkpoints", output / "elsewhere")
    with pytest.raises(InputError, match="is no checkpoint of"):
        pretrain(settings, resume=str(output / "elsewhere" / "stage-1-step-00000003"))


def test_only_the_newest_checkpoints_are_kept(small: Settings) -> None:
    settings = small(stages=[{"stage": 1, "steps": 6}], checkpoints={"steps": 1, "keep": 2, "minutes": None})
    pretrain(settings)
    assert names(Path(settings.output)) == ["stage-1-step-00000004", "stage-1-step-00000005"]
    assert not list((Path(settings.output) / "checkpoints").glob(".*"))


def test_checkpoints_come_with_time(small: Settings) -> None:
    settings = small(stages=[{"stage": 1, "steps": 4}], checkpoints={"minutes": 0.0})
    pretrain(settings)
    assert len(names(Path(settings.output))) == 3


def test_every_third_step_and_the_last_are_logged(small: Settings) -> None:
    settings = small(log={"steps": 3, "tensorboard": False, "peak_flops": 1e12})
    pretrain(settings)
    assert places(settings.output) == [(1, 3), (1, 6), (1, 7), (2, 3), (2, 6)]
    for record in read_log(Path(settings.output)):
        assert 0 < record["flops_utilisation"] < 1
        assert 0 <= record["data_wait"] <= 1
        assert record["tokens_per_second"] > record["samples_per_second"] > 0
        assert 0.06 < record["temperature"] < 0.08
        assert record["samples"] == 16 * record["step"]
        assert record["loss"] == pytest.approx(sum(record["losses"].values()))
        assert record["accuracies"].keys() == record["losses"].keys() - {"wpg"}


def test_another_configuration_is_refused(small: Settings) -> None:
    settings = small(stages=[{"stage": 1, "steps": 2}])
    pretrain(settings)
    with pytest.raises(ConfigurationMismatchError, match=r"optimizer.clipping: 10.0 -> 5.0; seed: 0 -> 3"):
        pretrain(small(stages=[{"stage": 1, "steps": 2}], optimizer={"clipping": 5.0}, seed=3))
    with pytest.raises(InputError, match="holds a run already"):
        pretrain(settings, resume="never")
    pretrain(small(stages=[{"stage": 1, "steps": 2}], log={"steps": 2, "tensorboard": False}))


def test_infinite_weights_end_the_run(small: Settings) -> None:
    """A learning rate beyond all measure, from the second step on."""
    for precision in ("fp32", "bf16"):
        stages = [{"stage": 1, "steps": 9, "learning_rate": 1e30, "warm_up": 0.0}]
        settings = small(
            precision, stages=stages, precision={"type": precision}, checkpoints={"steps": 1, "minutes": None}
        )
        with pytest.raises(MvptrError, match=r"(is nan|is inf) in step \d of stage 1"):
            pretrain(settings)
        assert not (Path(settings.output) / "stage-1").exists()


def test_fp16_overflow_is_normal_until_the_scale_can_fall_no_further(small: Settings) -> None:
    stages = [{"stage": 1, "steps": 12}]
    scale = {"type": "fp16", "initial_scale_power": 24, "hysteresis": 1}
    settings = small("falls", stages=stages, precision=scale)
    pretrain(settings)
    overflows = [record["overflow"] for record in curve(settings.output)]
    scales = [record["loss_scale"] for record in curve(settings.output)]
    assert overflows[0] and not overflows[-1]
    assert scales[0] == 2.0**24 and scales[-1] < scales[0]
    for zero in (0, 2):
        stuck = small(f"stuck-{zero}", stages=stages, precision=scale | {"min_scale": 2**24}, zero={"stage": zero})
        with pytest.raises(MvptrError, match=r"overflow float16 even at the least loss scale.*lower learning_rate"):
            pretrain(stuck)


def test_a_corrupt_shard_ends_the_run_and_leaves_a_checkpoint(small: Settings, shards: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "data"))
    settings = small(data=[str(copy)], checkpoints={"steps": 1, "minutes": None})

    def corrupt() -> None:
        for tar in copy.glob("regions/*.tar"):
            data = bytearray(tar.read_bytes())
            data[:] = data.replace(b"\x93NUMPY", b"\x93NUMPX")
            tar.write_bytes(data)

    with pytest.raises(DamagedFileError, match="npy"):
        pretrain(settings, listener=Heard({(1, 2): corrupt}))
    found = names(Path(settings.output))
    assert found
    shutil.rmtree(copy)
    shutil.copytree(shards, copy)
    whole = small("whole")
    pretrain(whole)
    pretrain(settings)
    assert curve(settings.output) == curve(whole.output)


def test_unsound_samples_may_be_left_out(small: Settings, shards: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "data"))
    tar = next(copy.glob("regions/*.tar"))
    tar.write_bytes(tar.read_bytes().replace(b"\x93NUMPY", b"\x93NUMPX"))
    changes = {"data": [str(copy)], "stages": [{"stage": 2, "steps": 6}]}
    pretrain(small("allowed", batches={"global_batch": 16, "max_faults": 48}, **changes))
    assert places(small("allowed").output)[-1] == (2, 6)
    with pytest.raises(MvptrError, match="2 may be skipped"):
        pretrain(small("few", batches={"global_batch": 16, "max_faults": 2}, **changes))


def test_batches_that_cannot_be_are_refused_at_once(small: Settings) -> None:
    with pytest.raises(InputError, match="no 3 equal parts"):
        pretrain(small(batches={"global_batch": 16, "accumulation": 3}))
    with pytest.raises(MvptrError, match="batch"):
        pretrain(small(batches={"global_batch": 1024}))


def test_one_run_at_a_time(small: Settings) -> None:
    settings = small(stages=[{"stage": 1, "steps": 3}])

    def again() -> None:
        with pytest.raises(BusyError, match="is being written by"), hold_lock(Store.at(settings.output), "pretrain"):
            pass

    pretrain(settings, listener=Heard({(1, 1): again}))
    assert places(settings.output) == [(1, 1), (1, 2), (1, 3)]


def test_data_with_other_phrases_are_refused(small: Settings, shards: Path, tmp_path: Path) -> None:
    """Their samples are in the same order, so that nothing else would tell."""
    copy = tmp_path / "data"
    shutil.copytree(shards, copy)
    settings = small(data=[str(copy)], checkpoints={"steps": 1, "minutes": None})
    with pytest.raises(StoppedError):
        pretrain(settings, listener=Heard({(1, 1): TERMINATE[signal.SIGTERM]}))
    store = Store.at(copy)
    vocabulary = PhraseVocabulary.from_counts([(("horse", "old"), 60), (("horse", "brown"), 50)], {"made": "again"})
    manifest = store.read_json("manifest.json")
    vocabulary.save(store, manifest["phrase_vocab"]["name"])
    manifest["phrase_vocab"] |= {
        "digest": vocabulary.digest,
        "sha256": store.sha256(manifest["phrase_vocab"]["name"]),
    }
    body = {name: value for name, value in manifest.items() if name != "digest"}
    store.write_json("manifest.json", body | {"digest": digest(body)})
    with pytest.raises(ConfigurationMismatchError, match="another phrase vocabulary"):
        pretrain(settings)


def test_a_run_may_begin_with_bert(small: Settings, word_pieces: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 48, "num_hidden_layers": 4}
    bert = BertForPreTraining(BertConfig(vocab_size=22, max_position_embeddings=64, **sizes))
    bert.save_pretrained(tmp_path / "bert")
    shutil.copy(word_pieces, tmp_path / "bert")
    settings = small(
        initial={"bert": str(tmp_path / "bert")}, model={"wpg_layer": 1}, stages=[{"stage": 2, "steps": 2}]
    )
    heard = Heard()
    model = load_model(pretrain(settings, listener=heard)).model
    assert any("fresh" in line or "missing" in line or "phrase" in line for line in heard.lines)
    begun = load_model(Path(settings.output) / "initial").model.state_dict()
    name = "layer.1.output.dense.weight"
    assert torch.equal(begun[f"bert.mul_encoder.{name}"], bert.bert.encoder.layer[3].output.dense.weight)
    assert model.configuration.layers == 2
    assert not torch.equal(
        begun["bert.embeddings.word_embeddings.weight"], model.bert.embeddings.word_embeddings.weight
    )


def test_a_model_of_other_sizes_is_refused(small: Settings) -> None:
    folder = pretrain(small("a", stages=[{"stage": 1, "steps": 1}]))
    model = {"hidden_size": 48, "heads": 3, "feed_forward_size": 48, "layers": 2, "positions": 64, "wpg_layer": 1}
    with pytest.raises(InputError, match="hidden_size: 24 -> 48"):
        pretrain(small("b", initial={"model": str(folder)}, model=model))
