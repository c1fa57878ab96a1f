"""Slurm jobs through a stand-in for `sbatch` and `scancel` that starts each job script as a process group of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import distributed  # noqa: F401 - sets its defaults, which a test alters
import pytest

from mvptr_data.errors import InputError, MissingDependencyError
from pipelines.cluster import ClusterOptions, open_cluster, tasks
from pipelines.cluster.options import RECIPES
from pipelines.cluster.slurm import SlurmJobs, SlurmRecipe, cluster_arguments, import_jobqueue, read_recipe

SBATCH = """#!/bin/sh
cd "$(dirname "$0")/jobs" || exit 1
number=1
while ! mkdir "$number" 2>/dev/null; do number=$((number + 1)); done
cp "$1" "$number/script"
SLURM_JOB_ID=$number setsid bash "$number/script" >"$number/out" 2>&1 </dev/null &
echo $! >"$number/pid"
echo "Submitted batch job $number"
"""
SCANCEL = """#!/bin/sh
kill -TERM -- -"$(cat "$(dirname "$0")/jobs/$1/pid")"
"""
RECIPE = """
queue: short
account: "alchemy"
memory: 2GB
walltime: "00:10:00"
host: 127.0.0.1
job_script_prologue: [export GREETING=hello]
"""


class Slurm:
    """What the stand-in has done, seen from outside."""

    def __init__(self, folder: Path) -> None:
        self.jobs = folder / "jobs"
        self.recipe = folder / "recipe.yaml"

    def scripts(self) -> list[str]:
        return [path.read_text() for path in sorted(self.jobs.glob("*/script"))]

    def groups(self) -> set[int]:
        return {int(path.read_text()) for path in self.jobs.glob("*/pid")}

    def alive(self) -> list[int]:
        """Processes of any job."""
        return [pid for pid, group in _process_groups() if group in self.groups()]

    def options(self, text: str = RECIPE, **chosen: Any) -> ClusterOptions:
        self.recipe.write_text(text)
        return ClusterOptions(cluster="slurm", cluster_config=str(self.recipe), **chosen)


def _process_groups() -> Iterator[tuple[int, int]]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = stat.read_text().rpartition(") ")[2].split()[:3]
        except OSError:
            continue
        if state != "Z":
            yield int(stat.parent.name), int(group)


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 120
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "jobs").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = Slurm(tmp_path)
    yield found
    for group in found.groups():
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_tasks_run_in_jobs_and_nothing_is_left_behind(slurm: Slurm) -> None:
    asks = ["(__import__('time').sleep(0.3), __import__('os').environ['SLURM_JOB_ID'])[1]"] * 8
    greeting = "__import__('os').environ['GREETING']"
    heard: list[str] = []
    with open_cluster(slurm.options(workers=2, threads=3), say=heard.append) as running:
        assert until(lambda: len(running._client.nthreads()) == 2)
        assert {outcome for _, outcome in running.run_tasks(eval, asks)} == {"1", "2"}
        assert [outcome for _, outcome in running.run_tasks(eval, [greeting])] == ["hello"]
        assert slurm.alive()
    assert heard == ["waiting for the first job of --cluster slurm to start"]
    assert until(lambda: not slurm.alive()), "processes of cancelled jobs are still there"
    scripts = slurm.scripts()
    assert len(scripts) == 2
    for line in ("-p short", "-A alchemy", "--cpus-per-task=3", "--mem=2G", "-t 00:10:00", "-J mvptr-data"):
        assert f"#SBATCH {line}\n" in scripts[0]
    assert "--lifetime 510s --lifetime-stagger 25s" in scripts[0]


def test_a_job_that_ends_is_replaced(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "ASK_SECONDS", 0.3)
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "100 ms"}),  # shorter than any job's start
        open_cluster(slurm.options()) as running,
    ):
        naps = running.run_tasks(time.sleep, [0.1] * 12)
        next(naps)
        os.killpg(next(iter(slurm.groups())), signal.SIGKILL)  # the node is gone, with all its workers
        assert [outcome for _, outcome in naps] == [None] * 11
        assert len(slurm.scripts()) == 2
    assert until(lambda: not slurm.alive())


def test_a_job_that_dask_has_dropped_is_new_when_it_is_submitted_again() -> None:
    ended: list[str] = []
    workers: dict[str, Any] = {"tcp://here:1": SimpleNamespace(name="0")}
    cluster = SimpleNamespace(
        scheduler=SimpleNamespace(workers=workers),
        workers={"0": None},
        loop=SimpleNamespace(add_callback=lambda end, cluster, name: ended.append(name)),
        scale=lambda jobs: None,
    )
    jobs = SlurmJobs(cluster, 1, [])
    jobs.keep()
    workers.clear()
    cluster.workers = {}
    jobs.keep()
    cluster.workers = {"0": None}  # in the queue
    for _ in range(3):
        jobs.keep()
    assert ended == []
    workers["tcp://here:2"] = SimpleNamespace(name="0")
    jobs.keep()
    workers.clear()
    for _ in range(3):
        jobs.keep()
    assert ended == ["0"]


@pytest.mark.slow
def test_jobs_with_several_workers_are_replaced_when_their_time_is_up(
    slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "ASK_SECONDS", 0.5)
    with open_cluster(slurm.options(RECIPE + 'workers_per_job: 2\nlifetime: "00:00:06"\n')) as running:
        assert [outcome for _, outcome in running.run_tasks(time.sleep, [0.3] * 60)] == [None] * 60
        assert len(slurm.scripts()) > 1
    assert until(lambda: not slurm.alive())


@pytest.mark.slow
def test_jobs_end_when_the_command_is_killed(slurm: Slurm) -> None:
    options = slurm.options()
    program = f"""
import os, time
from pipelines.cluster import ClusterOptions, open_cluster
if __name__ == "__main__":
    with open_cluster(ClusterOptions(cluster="slurm", cluster_config={options.cluster_config!r})) as running:
        for number, _ in enumerate(running.run_tasks(time.sleep, [0.1] * 100)):
            if number == 3:
                os.kill(os.getpid(), {signal.SIGKILL:d})
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL and slurm.scripts()
    assert until(lambda: not slurm.alive())


def test_jobs_that_slurm_refuses_end_the_command_in_its_words(slurm: Slurm) -> None:
    (slurm.jobs.parent / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    with (
        pytest.raises(InputError, match=r"refuses the jobs: sbatch: error: invalid partition\."),
        open_cluster(slurm.options()),
    ):
        pass


def test_without_sbatch_the_message_says_so(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingDependencyError, match="no sbatch command"), open_cluster(slurm.options()):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memory: 2GB", "lacks walltime"),
        ("walltime: '1:00:00'\nmemory: [2GB]", "memory is .* must be text"),
        ("walltime: 12:00:00\nmemory: 2GB", "walltime is 43200; it must be text. Put it in quotes"),
        ("walltime: '90'\nmemory: 2GB", "days-"),
        ("walltime: '1:00:00'\nmemory: lots", "memory is 'lots'"),
        ("walltime: '1:00:00'\nmemory: 2GB\nqueues: gpu", "unknown keys: queues. Known are memory, walltime, jobs"),
        ("walltime: '1:00:00'\nmemory: 2GB\njobs: 0", "jobs is 0"),
        ("walltime: '1:00:00'\nmemory: 2GB\njobs: true", "jobs is True; it must be a whole number"),
        ("walltime: '1:00:00'\nmemory: 2GB\ngpus: 4", "asks for 4 GPUs"),
        ("walltime: '1:00:00'\nmemory: 2GB\nlifetime: '1:00:00'", "workers would leave after 3600 s"),
        ("walltime: '1:00:00'\nmemory: 2GB\nqueue: 'a; rm -rf /'", "characters that may not be there"),
        ("walltime: '1:00:00'\nmemory: 2GB\naccount: \"a\\ntouch /tmp/x\"", "characters that may not be there"),
        ("walltime: '1:00:00'\nmemory: 2GB\nlocal_directory: $(id)", "characters that may not be there"),
        ("walltime: '1:00:00'\nmemory: 2GB\njob_extra_directives: --requeue", "must be a list of texts"),
        ("walltime: '1:00:00'\nmemory: 2GB\njob_extra_directives: [\"a\\nb\"]", "characters that may not be there"),
        ("- a list", "no `name: value` lines"),
        ("a: [b", "is not YAML"),
        ("memory: !!bool 2GB", "is not YAML"),
        ("walltime: '1:00:00'\nmemory: -2GB", "memory is '-2GB'"),
        ("walltime: '1:00:00'\nmemory: 2GB\nlifetime: '0:00:00'", "workers would leave after 0 s"),
        ("walltime: '0:00:00'\nmemory: 2GB", "walltime is 0 s"),
    ],
)
def test_an_unusable_recipe_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_recipe(str(file))
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"cannot read the recipe /nowhere/a\.yaml: No such file"):
        read_recipe("/nowhere/a.yaml")
    with pytest.raises(InputError, match="needs a recipe"):
        ClusterOptions(cluster="slurm")
    with pytest.raises(InputError, match="takes no configuration file"):
        ClusterOptions(cluster="local", cluster_config="a.yaml")


def test_ctrl_c_stays_what_it_was() -> None:
    """In a process of its own: the import, which would change it, comes once."""
    code = (
        "import signal, threading; from pipelines.cluster.slurm import import_jobqueue;"
        "signal.signal(2, signal.default_int_handler);"
        "thread = threading.Thread(target=import_jobqueue); thread.start(); thread.join();"
        "assert import_jobqueue().SLURMJob; assert signal.signal(2, signal.SIG_IGN) is signal.default_int_handler;"
        "assert signal.getsignal(2) is signal.SIG_IGN; print('kept')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("kept\n", 0), ended.stderr


def test_the_recipes_that_come_with_the_package_are_sound() -> None:
    jobqueue = import_jobqueue()
    for name, line in (("slurm.yaml", "--cpus-per-task=8"), ("slurm-gpu.yaml", "--gres=gpu:1")):
        arguments = cluster_arguments(read_recipe(str(RECIPES / name)), threads=2)
        for ours in ("scheduler_options", "log_directory"):
            del arguments[ours]
        assert f"#SBATCH {line}" in jobqueue.SLURMJob("tcp://here:1", name="job", **arguments).job_script()
    for key in SlurmRecipe.__slots__:
        assert f"`{key}`" in (RECIPES / "README.md").read_text(), f"the README does not explain {key}"


@pytest.mark.parametrize(
    ("array", "code"), [((0, 15, 16), 0), ((1, 16, 16), 2), ((0, 30, 16), 2)], ids=["0-15", "1-16", "0-30:2"]
)
def test_the_job_array_script_counts_from_zero(tmp_path: Path, array: tuple[int, int, int], code: int) -> None:
    (tmp_path / "mvptr-data").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "mvptr-data").chmod(0o755)
    least, most, count = (str(number) for number in array)
    variables = {"MIN": least, "MAX": most, "COUNT": count, "ID": "3"}
    environment = {f"SLURM_ARRAY_TASK_{name}": value for name, value in variables.items()}
    done = subprocess.run(
        ["bash", str(RECIPES / "slurm-array.sh"), "my photos", "out", "--detector", "compact"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    told = [
        "extract-regions",
        "my photos",
        "out",
        "--array-task",
        "3/16",
        "--cluster",
        "inline",
        "--detector",
        "compact",
    ]
    assert done.stdout.splitlines() == ([] if code else told)
