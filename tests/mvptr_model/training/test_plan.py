"""A plan counts what the run will do, and lists all that stands in its way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from mvptr_data.phrases import PhraseVocabulary
from mvptr_data.storage import Store
from mvptr_model.initialisation.scratch import from_scratch
from mvptr_model.saved_model import load_model
from mvptr_model.training.log import read_log
from mvptr_model.training.plan import parameters_by_part, plan
from mvptr_model.training.pretrain import pretrain
from mvptr_model.word_pieces import WordPieces
from pipelines.train_cli.plan import plan_command
from tests.mvptr_model.training.conftest import Given, Settings


def test_the_plan_is_what_the_run_does(small: Settings) -> None:
    settings = small(stages=[{"stage": 1, "epochs": 2}, {"stage": 2, "steps": 6}])
    found = plan(settings)
    assert found.problems == []
    assert [(one.samples, one.captions) for one in found.data] == [(48, 96)]
    assert [(one.batches, one.steps, one.warm_up, one.pairs, one.micro_batch) for one in found.stages] == [
        (6, 12, 2, 192, 16),
        (6, 6, 1, 96, 16),
    ]
    first, second = (one.flops / one.pairs for one in found.stages)
    assert 0 < first < second
    assert not Path(settings.output).exists()
    model = load_model(pretrain(settings)).model
    assert sum(found.parameters.values()) == sum(one.numel() for one in model.parameters())
    assert found.configuration == model.configuration
    records = read_log(Path(settings.output))
    assert [sum(record["stage"] == stage for record in records) for stage in (1, 2)] == [12, 6]
    assert plan(settings).problems == []  # the output holds this very run


def test_parts_are_all_parameters() -> None:
    words = WordPieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    phrases = PhraseVocabulary.from_counts([(("a", "b"), 1)], {})
    found = parameters_by_part(from_scratch(words, phrases).model)  # base size
    assert list(found) == [
        "VSC projections",
        "embeddings",
        "region embedding",
        "textual encoder",
        "visual encoder",
        "multi-modal encoder",
        "ITM head",
        "MLM head",
        "tag head",
        "phrase head",
    ]
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert found["textual encoder"] == found["visual encoder"] == found["multi-modal encoder"] == 6 * layer
    assert found["embeddings"] == (5 + 1 + 512 + 2 + 2) * 768
    assert found["region embedding"] == 2054 * 768 + 3 * 768 and found["VSC projections"] == 2 * 768 * 768 + 1


def test_memory_falls_with_ranks_and_half_precision(small: Settings) -> None:
    one, two = (plan(small(), ranks=ranks).stages[1] for ranks in (1, 2))
    assert (one.micro_batch, two.micro_batch) == (16, 8)
    assert two.memory.optimizer == pytest.approx(one.memory.optimizer / 2, rel=0.01)
    assert two.memory.activations < 0.6 * one.memory.activations
    half = plan(small(precision={"type": "bf16"})).stages[1]
    assert half.memory.weights == one.memory.weights // 2 and half.memory.activations < 0.7 * one.memory.activations
    first, second = plan(small()).stages
    assert first.learned < second.learned and first.memory.activations < second.memory.activations


def test_all_problems_at_once(small: Settings, shards: Path, tmp_path: Path) -> None:
    """A data set that is not there, one with a shard cut short, an output that is a file, ranks that get unequal parts."""
    torn = Path(shutil.copytree(shards, tmp_path / "torn"))
    tar = torn / "regions" / "00002.tar"
    tar.write_bytes(tar.read_bytes()[:-1])
    (tmp_path / "run").write_text("a file")
    data = [str(shards), str(tmp_path / "nowhere"), str(torn)]
    found = plan(small(data=data), ranks=3)
    assert len(found.problems) == 4
    for problem, said in zip(
        found.problems, ("nowhere has no manifest", "00002.tar has", "cannot write to", "no 1 equal parts"), strict=True
    ):
        assert said in problem
    assert len(found.data) == 1 and not found.stages


def test_initial_weights_are_looked_at_whatever_the_data_are(small: Settings, shards: Path, tmp_path: Path) -> None:
    for data in ([str(tmp_path / "nowhere"), str(shards)], [str(tmp_path / "nowhere")]):
        for initial, said in (
            ({"word_pieces": str(tmp_path / "no.txt")}, "cannot read the word pieces"),
            ({"bert": str(tmp_path / "no bert")}, "there is no checkpoint at"),
            ({"model": str(tmp_path / "no model")}, "there is no model at"),
        ):
            found = plan(small(data=data, initial=initial), ranks=3)
            assert [
                problem.find(part) >= 0
                for problem, part in zip(found.problems, ("nowhere has no manifest", "equal parts", said), strict=True)
            ] == [True] * 3
    sound = plan(small(data=[str(tmp_path / "nowhere"), str(shards)]))
    assert len(sound.problems) == 1 and sound.parameters and not sound.stages


def test_what_the_data_lack_is_told_beside_what_the_weights_lack(
    small: Settings, shards: Path, published: Path, tmp_path: Path
) -> None:
    missing = {"word_pieces": str(tmp_path / "no.txt")}
    found = plan(small(data=[str(shards), str(published)], initial=missing))
    assert len(found.problems) == 2 and "word pieces" in found.problems[0] and "vocabulary" in found.problems[1]


def test_what_the_initial_weights_lack_is_a_problem(small: Settings, tmp_path: Path) -> None:
    for initial, said in (
        ({"bert": str(tmp_path / "no bert")}, "there is no checkpoint at"),
        ({"model": str(tmp_path)}, "there is no model at"),
        ({"word_pieces": str(tmp_path / "vocab.txt")}, "cannot read the word pieces"),
    ):
        found = plan(small(initial=initial))
        assert len(found.problems) == 1 and said in found.problems[0]
        assert found.data and not found.parameters


def test_other_vocabularies_are_a_problem(small: Settings, shards: Path, published: Path) -> None:
    found = plan(small(data=[str(shards), str(published)]))
    assert len(found.problems) == 1 and "phrase vocabulary" in found.problems[0]
    assert found.parameters and not found.stages


def test_another_run_in_the_output_is_a_problem(small: Settings) -> None:
    settings = small(stages=[{"stage": 1, "steps": 1}])
    pretrain(settings)
    found = plan(small(stages=[{"stage": 1, "steps": 1}], seed=5))
    assert len(found.problems) == 1 and "holds a run with other settings" in found.problems[0]
    assert "seed" in found.problems[0]


def test_a_named_checkpoint_allows_what_the_run_would(small: Settings) -> None:
    learning = {"stage": 1, "steps": 2, "learning_rate": 1e-4}
    settings = small(stages=[learning], checkpoints={"steps": 1, "minutes": None})
    pretrain(settings)
    slower = small(stages=[{**learning, "learning_rate": 1e-5}], checkpoints={"steps": 1, "minutes": None})
    back = str(Path(settings.output) / "checkpoints" / "stage-1-step-00000001")
    assert not plan(slower, resume=back).problems
    for resume, said in (
        ("auto", "holds a run with other settings"),
        ("never", "holds a run already"),
        (back[:-1] + "9", "is no checkpoint of"),
    ):
        (problem,) = plan(slower, resume=resume).problems
        assert said in problem
    (problem,) = plan(small(output=f"{settings.output}-new"), resume=back).problems
    assert "is no checkpoint of" in problem


def test_batches_that_the_data_do_not_fill(small: Settings) -> None:
    found = plan(small(batches={"global_batch": 256}))
    assert len(found.problems) == 1 and "do not fill a global batch of 256" in found.problems[0]


def test_devices_that_are_too_small(small: Settings) -> None:
    found = plan(small(), device_bytes=1000)
    assert [problem.startswith(f"stage {number} needs") for number, problem in enumerate(found.problems, 1)] == [
        True
    ] * 2
    assert plan(small(), device_bytes=10**9).problems == []


def test_a_disk_that_is_too_small(small: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    found = plan(small())
    assert len(found.problems) == 1 and "checkpoints take up to" in found.problems[0] and found.stages


def test_the_command(given: Given, tmp_path: Path) -> None:
    import yaml

    values = given()
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    runner = CliRunner()
    sound = runner.invoke(
        plan_command, [str(tmp_path / "run.yaml"), "--ranks", "2", "--tflops", "0.001"], catch_exceptions=False
    )
    assert sound.exit_code == 0 and sound.stderr == ""
    for said in (
        "96 captions of 48 images",
        "multi-modal encoder",
        "stage 2    6 steps (6 an epoch), 1 of them warm-up",
    ):
        assert said in sound.stdout
    changes = ["data=[nowhere]", f"output={tmp_path / 'run.yaml'}"]
    problems = runner.invoke(plan_command, [str(tmp_path / "run.yaml"), *changes], catch_exceptions=False)
    assert problems.exit_code == 1
    assert [line.partition(":")[0] for line in problems.stderr.splitlines()] == ["problem"] * 2
    assert not Store.at(tmp_path / "run").exists("settings.json")
