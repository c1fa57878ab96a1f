"""Workers as Slurm jobs, from a recipe file: read it, check it, submit the jobs, replace those that end.

A recipe is the user's own file, as a job script is. Its values go into the script's header and into one command line, so all but
`job_script_prologue` (shell lines by nature) may only hold characters that mean nothing to a shell, `$NAME` in paths excepted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from mvptr_data.errors import InputError, MissingDependencyError
from pipelines.cluster.options import THREAD_VARIABLES, ClusterOptions

_WORD = re.compile(r"[A-Za-z0-9_.:@%+=,/-]+")
_PATH = re.compile(r"(?:[A-Za-z0-9_.:@%+=,/~-]|\$[A-Za-z_][A-Za-z0-9_]*|\$\{[A-Za-z_][A-Za-z0-9_]*\})+")
_LINE = re.compile(r"[^\x00-\x1f\x7f]+")
_TIME = re.compile(r"(?:(\d+)-)?(\d{1,2}):([0-5]\d):([0-5]\d)")
#: A worker leaves at this share of the walltime, give or take the stagger, so that not all leave at once or are killed.
_LIFETIME, _STAGGER = 0.85, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmRecipe:
    """What a job is. Times are `[days-]hours:minutes:seconds`.

    memory:          of a job, for all its workers, e.g. `16GB`.
    walltime:        of a job; workers leave earlier by themselves and new jobs take their place.
    jobs:            how many; `--workers` overrides it.
    workers_per_job: processes of a job, each with `--threads` compute threads.
    cores:           of a job; None takes workers_per_job x threads.
    gpus:            of a job, 0 or 1: Slurm shows each job its own.
    lifetime:        after which a worker leaves; None takes 85 % of the walltime.
    patience:        how long the queue may keep us without any worker.
    interface, host: network interface of workers and scheduler (`ib0`), or the address under which workers reach this machine.
    """

    memory: str
    walltime: str
    jobs: int = 1
    workers_per_job: int = 1
    cores: int | None = None
    gpus: int = 0
    queue: str | None = None
    account: str | None = None
    job_name: str = "mvptr-data"
    lifetime: str | None = None
    patience: str = "24:00:00"
    interface: str | None = None
    host: str | None = None
    python: str | None = None
    local_directory: str | None = None
    log_directory: str | None = None
    job_extra_directives: tuple[str, ...] = ()
    job_directives_skip: tuple[str, ...] = ()
    job_script_prologue: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            _check_type(item.name, str(item.type), getattr(self, item.name))
        for name in ("jobs", "workers_per_job", "cores"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"the recipe's {name} is {value}; it must be at least 1")
        if self.gpus not in (0, 1) or (self.gpus and self.workers_per_job > 1):
            raise InputError(
                f"the recipe asks for {self.gpus} GPUs and {self.workers_per_job} workers a job",
                "Ask for one GPU and one worker, and for more jobs; for whole nodes see slurm-array.sh.",
            )
        for name, pattern in _CHARACTERS.items():
            value = getattr(self, name)
            for text in value if isinstance(value, tuple) else (value,):
                if text is not None and not pattern.fullmatch(text):
                    raise InputError(f"the recipe's {name} has characters that may not be there: {text!r}")
        if _bytes(self.memory) < 1:
            raise InputError(f"the recipe's memory is {self.memory!r}", "Write what a job needs, e.g. 16GB.")
        walltime = _seconds("walltime", self.walltime)
        if not 0 < self.lifetime_seconds < walltime:
            raise InputError(
                f"the recipe's walltime is {walltime} s, and its workers would leave after {self.lifetime_seconds} s",
                "Give a lifetime of at least a second that is below the walltime, or none for 85 % of it.",
            )
        _seconds("patience", self.patience)

    @property
    def lifetime_seconds(self) -> int:
        if self.lifetime is not None:
            return _seconds("lifetime", self.lifetime)
        return max(1, int(_LIFETIME * _seconds("walltime", self.walltime)))

    @property
    def patience_seconds(self) -> float:
        return float(_seconds("patience", self.patience))


_CHARACTERS = {
    **dict.fromkeys(("memory", "queue", "account", "job_name", "interface", "host"), _WORD),
    **dict.fromkeys(("local_directory", "log_directory"), _PATH),
    **dict.fromkeys(("python", "job_extra_directives", "job_directives_skip", "job_script_prologue"), _LINE),
}


def read_recipe(path: str) -> SlurmRecipe:
    """The recipe in a YAML file. Raises `InputError` for a file that is not there or no YAML, unknown keys, unusable values."""
    import yaml

    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}") from error
    except Exception as error:  # a value that is none of its tag's (`!!bool no way`) raises what its conversion does
        raise InputError(f"the recipe {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, Mapping):
        raise InputError(f"the recipe {path} holds no `name: value` lines")
    known = {item.name: item for item in dataclasses.fields(SlurmRecipe)}
    if unknown := sorted(str(name) for name in found if name not in known):
        raise InputError(f"the recipe {path} has unknown keys: {', '.join(unknown)}", f"Known are {', '.join(known)}.")
    if missing := [name for name in ("memory", "walltime") if found.get(name) is None]:
        raise InputError(f"the recipe {path} lacks {', '.join(missing)}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in found.items() if value is not None
    }
    return SlurmRecipe(**values)


@dataclass(slots=True)
class SlurmJobs:
    """Jobs of one run. `keep` is called now and then: it submits a job for each one that has ended."""

    cluster: Any
    jobs: int
    refused: list[str]
    _seen: set[str] = field(default_factory=set)
    _missing: set[str] = field(default_factory=set)

    def keep(self) -> None:
        """Have as many jobs as the recipe says. Raises `InputError` where Slurm refuses them and no worker is there.

        Not Dask's `adapt`, which asks for jobs and drops them again while they are still in the queue. A job is taken for ended
        when its workers were seen once and are missing twice in a row: a worker that crashed is back within seconds.
        """
        names = [str(worker.name) for worker in list(self.cluster.scheduler.workers.values())]
        if self.refused and not names:
            raise InputError(
                f"Slurm refuses the jobs: {self.refused[-1]}",
                "Correct the recipe; `sbatch --test-only` tells whether a job script is acceptable.",
            )
        submitted = set(self.cluster.workers)
        # The workers of a job with several are named after it: job-0, job-1, ...
        live = {name if name in submitted else name.rpartition("-")[0] for name in names}
        self._seen &= submitted  # one that Dask has dropped is new when its name is submitted again
        missing = self._seen - live
        for job in missing & self._missing:
            self.cluster.loop.add_callback(_end_job, self.cluster, job)
        self._seen, self._missing = (self._seen | live) - (missing & self._missing), missing - self._missing
        self.cluster.scale(jobs=self.jobs)


async def _end_job(cluster: Any, name: str) -> None:
    if (job := cluster.workers.pop(name, None)) is not None:
        await job.close()


def import_jobqueue() -> Any:
    """The module `dask_jobqueue.slurm`. Its import makes Ctrl-C end this process without a word and with exit code 0 (a handler
    of its own for SIGINT, which no thread but the main one could even set); here it does not."""
    set_handler = signal.signal
    signal.signal = lambda number, handler: signal.getsignal(number)  # type: ignore[assignment]
    try:
        import dask_jobqueue.slurm
    finally:
        signal.signal = set_handler
    return dask_jobqueue.slurm


@contextlib.contextmanager
def slurm_jobs(recipe: SlurmRecipe, options: ClusterOptions) -> Iterator[SlurmJobs]:
    """A scheduler in this process and the recipe's jobs, submitted; at the end of the block they are cancelled.

    Raises `MissingDependencyError` without dask-jobqueue or `sbatch`, `InputError` for an interface that is not there.
    """
    try:
        jobqueue = import_jobqueue()
        from distributed.deploy.spec import ProcessInterface
    except ImportError as error:
        raise MissingDependencyError(
            "dask-jobqueue is not installed", "Install it with `pip install 'mvptr-data[cluster]'`."
        ) from error
    if shutil.which("sbatch") is None:
        raise MissingDependencyError(
            "there is no sbatch command", "Start this on a machine that may submit Slurm jobs, or use --cluster local."
        )
    refused: list[str] = []

    class Job(jobqueue.SLURMJob):  # type: ignore[name-defined]
        """Notes what Slurm says to a job it does not take; Dask alone would print a traceback and wait on."""

        async def start(self) -> None:
            try:
                await super().start()
            except RuntimeError as error:
                _, _, said = str(error).partition("stderr:\n")
                refused.append(" ".join(said.split()) or str(error).splitlines()[0])
                await ProcessInterface.start(self)

    jobs = math.ceil(options.workers / recipe.workers_per_job) if options.workers else recipe.jobs
    try:
        arguments = cluster_arguments(recipe, options.threads)
        cluster = jobqueue.SLURMCluster(job_cls=cast(Any, Job), silence_logs=logging.CRITICAL, **arguments)
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"cannot start a scheduler for Slurm's jobs: {error}") from error
    with cluster:
        cluster.scale(jobs=jobs)
        yield SlurmJobs(cluster, jobs, refused)


def cluster_arguments(recipe: SlurmRecipe, threads: int) -> dict[str, Any]:
    """What dask-jobqueue is told. Each worker takes one task at a time; `cores` only says how many threads Dask gives it."""
    scheduler: dict[str, Any] = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    if recipe.host is not None:
        scheduler["host"] = recipe.host
    stagger = max(1, int(_STAGGER * recipe.lifetime_seconds))
    logs = recipe.log_directory  # dask-jobqueue makes it, so it must be a real path already here
    gpus = [f"--gres=gpu:{recipe.gpus}"] if recipe.gpus else []
    return {
        "cores": recipe.workers_per_job,
        "processes": recipe.workers_per_job,
        "job_cpu": recipe.cores or recipe.workers_per_job * threads,
        "memory": recipe.memory,
        "walltime": recipe.walltime,
        "queue": recipe.queue,
        "account": recipe.account,
        "job_name": recipe.job_name,
        "interface": recipe.interface,
        "python": shlex.quote(recipe.python or sys.executable),
        "local_directory": recipe.local_directory,
        "log_directory": None if logs is None else str(Path(os.path.expandvars(logs)).expanduser()),
        "worker_extra_args": ["--lifetime", f"{recipe.lifetime_seconds}s", "--lifetime-stagger", f"{stagger}s"],
        "job_extra_directives": [*gpus, *recipe.job_extra_directives],
        "job_directives_skip": list(recipe.job_directives_skip),
        "job_script_prologue": [
            *(f"export {name}={threads}" for name in THREAD_VARIABLES),
            *recipe.job_script_prologue,
        ],
        "scheduler_options": scheduler,
    }


def _check_type(name: str, wanted: str, value: Any) -> None:
    """Raises `InputError` where a value is not of the type that the field is declared with."""
    if value is None and "None" in wanted:
        return
    if wanted.startswith("int"):
        right = isinstance(value, int) and not isinstance(value, bool)
    elif wanted.startswith("tuple"):
        right = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    else:
        right = isinstance(value, str)
    if not right:
        kind = (
            "a whole number"
            if wanted.startswith("int")
            else "a list of texts"
            if wanted.startswith("tuple")
            else "text"
        )
        # YAML reads an unquoted 12:00:00 as a number of seconds, and 240 could be Slurm's minutes.
        quote = " Put it in quotes." if kind == "text" else ""
        raise InputError(f"the recipe's {name} is {value!r}; it must be {kind}", quote.strip())


def _seconds(name: str, text: str) -> int:
    if (found := _TIME.fullmatch(text)) is None:
        raise InputError(f"the recipe's {name} is {text!r}", "Write [days-]hours:minutes:seconds, e.g. '12:00:00'.")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _bytes(text: str) -> int:
    from dask.utils import parse_bytes

    try:
        return int(parse_bytes(text))
    except ValueError as error:
        raise InputError(f"the recipe's memory is {text!r}", "Write a number and a unit, e.g. 16GB.") from error
