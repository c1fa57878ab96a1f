"""Opening a cluster: each kind starts its workers, or finds them, and ends what it started."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import Any

from mvptr_data.errors import InputError, MissingDependencyError
from pipelines.cluster import tasks
from pipelines.cluster.address import check_scheduler, check_workers
from pipelines.cluster.options import THREAD_VARIABLES, ClusterOptions
from pipelines.cluster.tasks import Cluster

#: Seconds that a scheduler's address may take to answer.
CONNECT_TIMEOUT = 20
#: A task that took this many workers with it may be tried once more; the next death makes it a `TaskFailure`. Slurm ends jobs
#: for reasons of its own (preemption, nodes), so there it takes more.
ALLOWED_FAILURES, ALLOWED_FAILURES_OF_JOBS = 1, 3


@contextlib.contextmanager
def open_cluster(
    options: ClusterOptions, *, report: str | None = None, say: Callable[[str], None] | None = None
) -> Iterator[Cluster]:
    """A cluster for the block. `report`: local file name for Dask's performance report (HTML), written where Dask is used.
    `say` is told what is waited for, where that may take long.

    Raises `MissingDependencyError` (no distributed, dask-cuda, dask-jobqueue or sbatch), `InputError` (an address where nothing
    answers, or workers without this release; no GPU, an unusable recipe, jobs that Slurm refuses).
    """
    if options.cluster == "inline":
        yield Cluster()
        return
    try:
        import distributed
    except ImportError as error:
        raise MissingDependencyError(
            "dask is not installed", "Install it with `pip install 'mvptr-data[cluster]'`, or use --cluster inline."
        ) from error
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet_loss())
        keep, patience, address = None, float(tasks.WORKERS_TIMEOUT), options.cluster
        if options.cluster == "local":
            address = stack.enter_context(_local(options))
            keep = _keeping_workers(address)
        elif options.cluster == "local-cuda":
            address = stack.enter_context(_local_cuda(options))
            keep = _keeping_workers(address)
        elif options.cluster == "slurm":
            from pipelines.cluster.slurm import read_recipe, slurm_jobs

            assert options.cluster_config is not None, "ClusterOptions saw to it"
            recipe = read_recipe(options.cluster_config)
            stack.enter_context(_patience_with_workers())
            jobs = stack.enter_context(slurm_jobs(recipe, options))
            spare_bystanders(jobs.cluster.scheduler, ALLOWED_FAILURES_OF_JOBS)
            keep, patience, address = jobs.keep, recipe.patience_seconds, jobs.cluster
        elsewhere = "://" in options.cluster
        try:
            if elsewhere:
                check_scheduler(options.cluster, CONNECT_TIMEOUT)
            client = stack.enter_context(distributed.Client(address, set_as_default=True, timeout=CONNECT_TIMEOUT))
            _await_worker(client, options, keep, patience, say)
            if elsewhere:
                check_workers(client, options.cluster)
        except (OSError, TimeoutError) as error:
            raise InputError(
                f"no Dask workers answer at {options.cluster} ({error})",
                "Start `dask scheduler` and `dask worker`, or check the address: its port is not the dashboard's.",
            ) from error
        if report is not None:
            stack.enter_context(_performance_report(report))
        yield Cluster(client, keep=keep, patience=patience)


def _await_worker(
    client: Any,
    options: ClusterOptions,
    keep: Callable[[], None] | None,
    patience: float,
    say: Callable[[str], None] | None,
) -> None:
    """Wait for the first worker. Raises `TimeoutError` after `patience` seconds, and what `keep` raises."""
    start = time.monotonic()
    if say is not None and options.cluster == "slurm" and not client.nthreads():
        say("waiting for the first job of --cluster slurm to start")
    while not client.nthreads():
        if keep is not None:
            keep()
        if time.monotonic() - start > patience:
            raise TimeoutError(f"no worker came within {patience:.0f} s")
        time.sleep(0.05)


@contextlib.contextmanager
def _local(options: ClusterOptions) -> Iterator[Any]:
    from distributed import LocalCluster

    with contextlib.ExitStack() as stack:
        stack.enter_context(_compute_threads(options.threads))
        with _interrupts_held():
            cluster = stack.enter_context(LocalCluster(n_workers=options.local_workers, processes=True, **_OURS))
        spare_bystanders(cluster.scheduler)
        with _patience_with_workers():
            yield cluster


@contextlib.contextmanager
def _local_cuda(options: ClusterOptions) -> Iterator[Any]:
    """One worker a GPU; `CUDA_VISIBLE_DEVICES` is respected, and each worker sees its own GPU as the first."""
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise MissingDependencyError(
            "dask-cuda is not installed", "Install it with `pip install 'mvptr-data[cuda]'`, or use --cluster local."
        ) from error
    gpus = _gpus()
    if len(gpus) < (options.workers or 1):
        raise InputError(
            f"--cluster local-cuda finds {len(gpus)} GPUs for {options.workers or 1} workers",
            "Look at `nvidia-smi` and CUDA_VISIBLE_DEVICES, ask for fewer workers, or use --cluster local.",
        )
    gpus = gpus[: options.workers]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_compute_threads(options.threads))
        try:
            with _interrupts_held(), warnings.catch_warnings():
                # Where NVML does not know which cores are near a GPU, its worker gets all of them.
                warnings.filterwarnings("ignore", "Cannot get CPU affinity")
                cluster = stack.enter_context(LocalCUDACluster(CUDA_VISIBLE_DEVICES=gpus, **_OURS))
        except Exception as error:  # NVML's errors pass through, some as a TypeError of the message about them
            raise InputError(
                f"dask-cuda cannot start workers on the GPUs {', '.join(gpus)} ({tasks.reason_of(error)})",
                "Name them in CUDA_VISIBLE_DEVICES by number, or by the whole UUID that `nvidia-smi -L` gives.",
            ) from error
        spare_bystanders(cluster.scheduler)
        with _patience_with_workers():
            yield cluster


def _patience_with_workers() -> contextlib.AbstractContextManager[None]:
    """Let Dask give up no worker of ours in the block.

    A nanny starts its worker again after each death. But 15 seconds after a death Dask looks once whether the worker is back, and
    gives it up, nanny and all, if it is not: because it starts slowly, or because it has died again in the meantime. A Slurm job
    it gives up as well, and `SlurmJobs.keep` would then wait for the workers of a job that nobody has submitted.
    """
    import dask

    return dask.config.set({"distributed.deploy.lost-worker-timeout": "1000 days"})


def _keeping_workers(cluster: Any) -> Callable[[], None]:
    """What replaces workers of a local cluster whose nannies have ended too, as one does when its worker dies while starting."""
    from distributed import Status

    workers = len(cluster.worker_spec)

    def replace() -> None:
        for name, nanny in list(cluster.workers.items()):
            if nanny.status in (Status.closed, Status.failed):
                del cluster.workers[name]
        cluster.scale(workers)  # starts those of its number that are missing

    return lambda: cluster.loop.add_callback(replace)


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; found without starting CUDA."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "torch is not installed", "Install it with `pip install 'mvptr-data[extract]'`."
        ) from error
    count = torch.cuda.device_count()
    if (names := os.environ.get("CUDA_VISIBLE_DEVICES")) is None:
        return [str(number) for number in range(count)]
    # CUDA takes the names up to the first that is none (`0,1,-1`), which dask-cuda would not.
    return [name.strip() for name in names.split(",")[:count]]


#: What all clusters of this machine have in common: one task at a time a worker, no dashboard, silence.
_OURS: dict[str, Any] = {
    "threads_per_worker": 1,
    "dashboard_address": "127.0.0.1:0",  # any free port, or a second run would warn that the usual one is taken
    "scheduler_kwargs": {"dashboard": False},
    "silence_logs": logging.CRITICAL,
}


@contextlib.contextmanager
def _compute_threads(threads: int) -> Iterator[None]:
    """Workers started in the block compute with so many threads, where Dask would have them use one.

    A thread of a worker starts with what these variables said when the process began; what torch was told in another thread
    does not reach it. Dask sets them in this process too, where they would outlive the block and overrule the next one.
    """
    import dask

    where = "distributed.nanny.pre-spawn-environ"
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    with dask.config.set({f"{where}.{name}": threads for name in THREAD_VARIABLES}):
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def spare_bystanders(scheduler: Any, allowed_failures: int = ALLOWED_FAILURES) -> None:
    """Set a scheduler of our own so that a task which kills its workers is found soon, and alone.

    Dask blames a worker's death on every task that it had been sent, not only on the one that ran. So each thread is sent one
    task at a time and the others wait at the scheduler, as Dask itself does for many tasks without dependencies.
    """
    scheduler.allowed_failures = allowed_failures
    scheduler.WORKER_SATURATION = 1.0
    scheduler.is_rootish = lambda task: True


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C is heard at the end of the block, and never by what its threads start, then or later.

    A terminal sends it to all processes, but ending the workers is the client's part. Threads and processes begin with the
    signal mask of the thread that starts them: so it also covers a worker that its nanny starts again.
    """
    resource_tracker.ensure_running()  # the first process that multiprocessing starts would lift the mask
    here = threading.current_thread() is threading.main_thread()
    heard: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: heard.append(number)) if here else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if here:
            signal.signal(signal.SIGINT, handler)
    if heard:
        signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def _quiet_loss() -> Iterator[None]:
    """Dask's own account of a lost scheduler, tracebacks and all, is not shown in the block: our one line says it."""
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in ("distributed", "tornado")]
    loggers = [logging.getLogger(name) for name in (*names, "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _performance_report(path: str) -> Iterator[None]:
    """Dask's report of the run. A report that cannot be made must not take the run's result with it."""
    from distributed import performance_report

    manager = performance_report(filename=path)
    manager.__enter__()
    try:
        yield
    finally:
        with contextlib.suppress(OSError, TimeoutError, RuntimeError):
            manager.__exit__(None, None, None)
