"""Running one task a shard: in this process, on this machine's processes or GPUs, as Slurm jobs, or on any Dask scheduler.

1. `options`: `ClusterOptions`, what a user may choose.
2. `tasks`: `Cluster.run_tasks` hands out items with a bound on how many are in flight and yields results as they come.
3. `kinds`: `open_cluster` starts (or finds) the workers and ends what it started.
4. `slurm`: jobs from a recipe file.
5. `address`: what a scheduler of the user's own is asked first.
6. `once`: what a process makes at first use and keeps, such as its model.

The shards on disk are the only truth: tasks are idempotent and return small receipts, so Dask's own state may die at any
time (a killed worker's tasks are simply run again, a killed run is started again and skips what is finished).
"""

from pipelines.cluster.kinds import open_cluster
from pipelines.cluster.once import once_per_process
from pipelines.cluster.options import ClusterOptions
from pipelines.cluster.tasks import Cluster, TaskFailure

__all__ = ["Cluster", "ClusterOptions", "TaskFailure", "once_per_process", "open_cluster"]
