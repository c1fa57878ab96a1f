"""`import-official` and `export-official`: the authors' checkpoint becomes a model, and that becomes it again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from mvptr_model.saved_model import load_model
from pipelines.train_cli import main
from tests.mvptr_model.initialisation.official_form import ANSWERS, IDS, SIZE, checkpoint, phrases, write

PLACES = "bert.embeddings.position_embeddings.weight"


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A small one with places enough for sequences of the usual length."""
    return write(checkpoint() | {PLACES: torch.randn(128, SIZE)}, tmp_path / "official")


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), catch_exceptions=False)


def test_in_and_out_again(source: str, tmp_path: Path) -> None:
    phrases(tmp_path)
    ids, model, out = (str(tmp_path / name) for name in ("id2phrase.json", "model", "out"))
    brought = run("import-official", source, model, "--phrases", ids, "--heads", "3")
    assert brought.exit_code == 0, brought.output
    assert f"40 word pieces and {len(IDS)} phrases in {model}" in brought.output
    assert load_model(model).model.configuration.heads == 3
    written = run("export-official", model, out)
    assert written.exit_code == 0, written.output
    assert written.output.splitlines()[-1] == f"written to {out}"
    theirs, again = (torch.load(f"{folder}/pytorch_model.bin", weights_only=True) for folder in (source, out))
    assert theirs.keys() - again.keys() == set(ANSWERS)
    assert all(torch.equal(again[name], theirs[name]) for name in again)
    assert json.loads((tmp_path / "out" / "id2phrase.json").read_text()) == json.loads(Path(ids).read_text())


def test_errors_are_one_line(source: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for words, said in (
        (("import-official", str(tmp_path / "nowhere"), out), "nowhere"),
        (("import-official", source, out, "--phrases", "nowhere.json"), "nowhere.json"),
        (("export-official", str(tmp_path / "nowhere"), out), "there is no model at"),
    ):
        done = run(*words)
        assert done.exit_code == 1
        assert said in done.stderr and "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not Path(out).exists()


@pytest.mark.parametrize("word", ["import-official", "export-official"])
def test_help_shows_an_example(word: str) -> None:
    shown = run(word, "--help")
    assert shown.exit_code == 0
    assert f"mvptr-train {word} " in shown.output
