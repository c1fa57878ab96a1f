#!/bin/bash
# Pre-training on N nodes of 8 GPUs: one torchrun a node, one rank a GPU.
#
#   sbatch slurm-pretrain.sh paper.yaml data='[coco]' output=runs/paper
#   sbatch --nodes 4 slurm-pretrain.sh paper.yaml ...
#
# Two minutes before its time is up the job is told: the run saves a checkpoint and ends, and the job queues again. It also does
# so after a node failed. `--resume auto`, the default, goes on from the newest sound checkpoint, also on another number of nodes;
# another --resume counts when the job starts first, and auto when it was queued again.
#SBATCH --job-name=mvptr-train
#SBATCH --partition=gpu
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
set -euo pipefail

config=${1:?usage: sbatch slurm-pretrain.sh CONFIG.yaml [KEY=VALUE ...] [--resume CHECKPOINT]}
shift
if [[ ${SLURM_RESTART_COUNT:-0} -gt 0 ]]; then
    set -- "$@" --resume auto # the last one counts
fi

# The signal reaches this shell alone, which tells the ranks. torchrun waits so long for them before it kills.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=110
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / 8))
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")

told=0
trap 'told=1; scancel --signal=TERM "$SLURM_JOB_ID"' TERM
srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node 8 \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "${nodes%%$'\n'*}:29500" \
    --no-python mvptr-train pretrain "$config" "$@" &
run=$!
code=0
wait "$run" || code=$?
if [[ $told -eq 1 ]]; then
    wait "$run" || true
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
