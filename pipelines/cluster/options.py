"""What a user may choose about where tasks run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mvptr_data.errors import InputError

#: How a process is told how many threads its libraries may compute with.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: The folder of recipes to copy.
RECIPES = Path(__file__).parent.parent / "recipes"
KINDS = ("inline", "local", "local-cuda", "slurm")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """Where tasks run.

    `cluster`: `inline` (this process), `local` (processes of this machine), `local-cuda` (one process for each of its GPUs),
    `slurm` (jobs, as the recipe file `cluster_config` says), or a scheduler's address (`tcp://host:8786`).
    `workers`: how many processes; None takes one for each `threads` cores (local), one a GPU (local-cuda), or what the recipe
    says (slurm). `threads`: compute threads a worker uses.
    Results are the same bytes wherever tasks run, as long as `threads` and the type of device stay the same.
    """

    cluster: str = "local"
    workers: int | None = None
    threads: int = 1
    cluster_config: str | None = None

    def __post_init__(self) -> None:
        if self.cluster not in KINDS and "://" not in self.cluster:
            raise InputError(
                f"unknown cluster {self.cluster!r}",
                f"Use {', '.join(KINDS)}, or a scheduler's address such as tcp://10.0.0.5:8786.",
            )
        if self.threads < 1 or (self.workers is not None and self.workers < 1):
            raise InputError(f"workers is {self.workers} and threads is {self.threads}; both must be at least 1")
        if (self.cluster_config is not None) != (self.cluster == "slurm"):
            raise InputError(
                f"the cluster {self.cluster!r} takes no configuration file"
                if self.cluster_config is not None
                else "the cluster 'slurm' needs a recipe",
                f"Recipes are for --cluster slurm: copy {RECIPES / 'slurm.yaml'}, fill in your site's names, and give it "
                f"with --cluster-config.",
            )

    @property
    def local_workers(self) -> int:
        return self.workers or max(1, len(os.sched_getaffinity(0)) // self.threads)

    @property
    def works_here(self) -> bool:
        """Whether the workers are processes of this machine that have what this process has."""
        return self.cluster in ("inline", "local")

    @property
    def processes_here(self) -> int | None:
        """How many processes of this machine compute; None where the workers are elsewhere."""
        if self.cluster == "local-cuda":
            import torch

            return self.workers or max(1, torch.cuda.device_count())
        if self.cluster == "inline":
            return 1
        return self.local_workers if self.cluster == "local" else None
