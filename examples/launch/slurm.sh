#!/bin/bash
# One training on several nodes: sbatch examples/launch/slurm.sh DATA [options of torchstone train]
# DATA and --runs have to be on a file system that all nodes share. See docs/distributed.md.
#SBATCH --job-name=torchstone
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --open-mode=append
#SBATCH --output=torchstone-%j.log
set -euo pipefail

# Preempted, or out of time: back into the queue. The next start goes on from the last checkpoint.
trap 'scontrol requeue "$SLURM_JOB_ID"' TERM

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
    --max-restarts 10 \
    --rdzv-backend c10d \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-endpoint "$first:29500" \
    -m torchstone train "$@" &
wait $!
