#!/bin/sh
#SBATCH --job-name=crnn
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
# sbatch slurm.sh DATA RUN: torchrun once a node, one process a GPU. DATA and RUN lie on a file system that all see.
set -e
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes "$SLURM_NNODES" --nproc_per_node "${SLURM_GPUS_PER_NODE:-1}" --max-restarts 3 \
    --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d --rdzv_endpoint "$first:29500" \
    -m crnn.cli.main train "$1" --out "$2"
