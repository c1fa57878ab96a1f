"""The commands as a user types them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mvptr_data.dataset.fields import REGIONS
from mvptr_data.dataset.receipts import read_receipt
from mvptr_data.dataset.shards import shard_writer
from mvptr_data.errors import SampleFault
from mvptr_data.storage import Store
from mvptr_data.version import __version__
from pipelines.cli import main

COMMANDS = sorted(main.commands)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    text = run(command, "--help").output
    assert ("Example:" in text or "Examples:" in text) and f"mvptr-data {command}" in text


def test_the_version_names_the_formats() -> None:
    text = run("--version").output
    assert __version__ in text and "manifest: writes version 2, reads 2" in text


def test_help_is_quick_and_imports_no_torch() -> None:
    code = "import sys; from pipelines.cli import main; print([m for m in ('torch', 'spacy', 'distributed') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_whole_way(world, published: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    inline = ("--cluster", "inline")
    extracted = run("extract-regions", world.images, out, "--samples-per-shard", 4, *inline)
    assert extracted.exit_code == 0 and "11 of 11 images have regions" in extracted.stderr
    built = run("build-phrase-vocab", world.captions, out, "--min-sentences", 2, "--top", 3, *inline)
    assert built.exit_code == 0 and len(built.stdout.splitlines()) == 4 and "kept" in built.stdout
    assert run("write-shards", out, *inline).exit_code == 0
    verified = run("verify", out, "--json", tmp_path / "findings.json", *inline)
    assert verified.exit_code == 0 and verified.stdout.startswith("sound: 11 samples in 12 files")
    assert json.loads((tmp_path / "findings.json").read_text())["findings"] == []
    assert (out / "manifest.json").read_bytes() == (published / "manifest.json").read_bytes()
    logs = sorted(path.name.split("-2")[0] for path in (out / "logs").glob("*.log"))
    assert logs == ["build-phrase-vocab", "extract-regions", "verify", "write-shards"]
    info = run("info", out)
    assert "11 images in 3 shards" in info.stdout and "11 samples" in info.stdout
    facts = json.loads(run("info", out, "--json").stdout)
    assert facts["fields"]["regions"]["counts"]["ok"] == 11 and facts["published"]["samples"] == 11
    picture = tmp_path / "sample.png"
    assert run("inspect", out, "--key", "000003", "--output", picture).exit_code == 0
    with Image.open(picture) as image:
        assert image.format == "PNG" and image.width > 1000


def test_quiet_says_nothing_and_the_log_has_it(world, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("extract-regions", world.images, tmp_path / "out", "--cluster", "inline", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    [log] = (tmp_path / "out/logs").glob("*.log")
    assert "11 of 11 images have regions" in log.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("extract-regions", "{tmp}/none", "{tmp}/out"), "no file or folder"),
        (("extract-regions", "{tmp}", "{tmp}/out"), "no images found"),
        (("extract-regions", "{tmp}", "{tmp}/out", "--detector", "yolo"), "compact"),
        (("extract-regions", "{tmp}", "{tmp}/out", "--cluster", "slrum"), "unknown cluster"),
        (("extract-regions", "{tmp}", "{tmp}/out", "--option", "x"), "NAME=VALUE"),
        (("extract-regions", "{tmp}", "{tmp}/out", "--option", "score_threshold=[1]"), "Give a number"),
        (("extract-regions", "{tmp}", "{tmp}/out", "--option", "score_threshold=NaN"), "Give a number"),
        (("extract-regions", "{tmp}", "{tmp}/out", "--option", "a=1", "--option", "a=x"), "given twice"),
        (("extract-regions", "{tmp}/bad\udcff", "{tmp}/out"), "not UTF-8"),
        (("extract-regions", "{tmp}", "{tmp}/out", "--split", "\udcff"), "the argument '\\udcff' is not UTF-8"),
        (("verify", "\udcff"), "is not UTF-8"),
        (("build-phrase-vocab", "foo://x", "{tmp}/out"), "Protocol not known"),
        (("build-phrase-vocab", "/dev/null", "{tmp}/out"), "not a regular file"),
        (("demo", "memory://x"), "is a URL"),
        (("build-phrase-vocab", "{tmp}/none.json", "{tmp}/out"), "no captions at"),
        (("build-phrase-vocab", "{tmp}/c.jsonl", "{tmp}/out", "--spacy-model", "en_no_such_model"), "en_no_such_model"),
        (("build-phrase-vocab", "{tmp}/c.jsonl", "{tmp}/out", "--min-sentences", "0"), "min-sentences"),
        (("write-shards", "{tmp}/none"), "extract-regions"),
        (("verify", "{tmp}/none"), "write-shards"),
        (("info", "{tmp}/none"), "no data set"),
        (("inspect", "{tmp}/none", "--key", "a"), "no manifest"),
        (("write-shards",), "Missing argument"),
    ],
    ids=str,
)
def test_mistakes_are_one_clear_line_and_a_failure(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "c.jsonl").write_text('{"image": "a.jpg", "captions": ["A red ball."]}\n')
    result = run(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert result.exit_code != 0 and result.stdout == ""
    [line] = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert message in line
    assert "Traceback" not in result.output and not (tmp_path / "out").exists()


def test_a_path_that_is_not_utf8_is_one_clear_line(world, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = f"{tmp_path}/bad\udcff"
    shutil.copytree(world.images, folder)
    result = run("extract-regions", folder, tmp_path / "out", "--cluster", "inline")
    assert result.exit_code == 1 and "is not UTF-8" in result.stderr


def test_info_shows_paths_as_they_are(data_set: Path, tmp_path: Path) -> None:
    odd = data_set.rename(tmp_path / "x[red]:dog:")
    (odd / "a[").mkdir()
    shown = run("info", odd)
    assert shown.exit_code == 0 and "x[red]:dog:" in shown.stdout


def test_findings_end_with_a_failure(data_set: Path) -> None:
    tar = data_set / "text/00000.tar"
    tar.write_bytes(tar.read_bytes() + b"\0")
    result = run("verify", data_set, "--cluster", "inline")
    assert result.exit_code == 1 and "digest: text/00000.tar" in result.stderr and "1 findings" in result.stderr


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_reader_that_leaves_ends_the_command_quietly(data_set: Path, options: tuple[str, ...]) -> None:
    """`mvptr-data failures OUT | head`: the reader is gone before the first line."""
    break_keys(data_set, ["a", "b"])
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", "failures", str(data_set), *options],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=120,
        )
    finally:
        os.close(writing)
    said = ended.stderr.decode()  # other libraries may have their say in it
    assert ended.returncode == 141, said
    assert not [word for word in ("Traceback", "BrokenPipe", "Exception ignored", "terminate") if word in said], said


def test_a_pipe_that_breaks_elsewhere_is_an_error() -> None:
    group = type(main)("group")

    @group.command("break")
    def broken() -> None:
        raise BrokenPipeError(32, "Broken pipe", "worker")

    result = CliRunner().invoke(group, ["break"])
    assert result.exit_code == 1 and "Error: Broken pipe: worker" in result.output


def test_failures_as_json_are_ascii(data_set: Path) -> None:
    keys = ["caf\u00e9", "x\u202egnp", "y\x9b2J"]
    break_keys(data_set, keys)
    result = run("failures", data_set, "--json")
    assert result.exit_code == 0 and result.stdout.isascii()
    assert [json.loads(line)["key"] for line in result.stdout.splitlines()] == keys


def break_keys(data_set: Path, keys: list[str]) -> None:
    """Put `keys` as faults in the place of the first shard."""
    store = Store.at(data_set)
    receipt = read_receipt(store, "regions", 0)
    assert receipt is not None
    with shard_writer(store, REGIONS, 0, configuration_digest=receipt.configuration_digest) as (writer, _):
        for key in keys:
            writer.add_fault(key, SampleFault("missing_file", "gone"))
