#!/bin/bash
# A job array without any Dask scheduler: array task I of N does the shards I, I + N, I + 2N, ... of one stored plan.
#
#   sbatch slurm-array.sh photos/ coco
#
# --array-task counts from 0: with --array=0-15 the tasks are 0/16 ... 15/16. Keep the array starting at 0 and without gaps or
# steps; the script refuses anything else, because some shards would then belong to no task. `%4` would let four run at once.
# Any task may be killed or requeued; submit the array again until `mvptr-data status coco` says that nothing is missing.
#SBATCH --job-name=mvptr-data
#SBATCH --partition=gpu
#SBATCH --array=0-15
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=48G
#SBATCH --time=12:00:00
#SBATCH --output=slurm-%A_%a.out
set -euo pipefail

images=${1:?usage: sbatch slurm-array.sh IMAGES OUT [OPTION ...]}
out=${2:?usage: sbatch slurm-array.sh IMAGES OUT [OPTION ...]}
shift 2

if [[ $SLURM_ARRAY_TASK_MIN -ne 0 || $((SLURM_ARRAY_TASK_MAX + 1)) -ne $SLURM_ARRAY_TASK_COUNT ]]; then
    echo "the array must be 0-N without gaps; it is $SLURM_ARRAY_TASK_MIN-$SLURM_ARRAY_TASK_MAX" \
        "with $SLURM_ARRAY_TASK_COUNT tasks" >&2
    exit 2
fi

# A node with several GPUs for each array task: --gres=gpu:4 above and --cluster local-cuda here.
exec mvptr-data extract-regions "$images" "$out" \
    --array-task "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --cluster inline "$@"
