#!/usr/bin/env bash
# A search on a Slurm cluster. Submit it from an activated environment, with directories
# that all nodes share:
#   sbatch experiments/launch/slurm.sh --workdir /shared/runs/c10 \
#     --preset small-cifar --data-dir /shared/tfds
#SBATCH --job-name=jaxhypernas
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --time=24:00:00
#SBATCH --nodes=2
# One task per GPU. JAX gives a task the GPU of its number on the node, so every task must
# see all GPUs of the node: no --gpus-per-task.
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
# All tasks get SIGTERM 300 seconds before the time is up. Then, and after preemption, the
# job goes back into the queue.
#SBATCH --signal=TERM@300
#SBATCH --requeue
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

code=0
srun jaxhypernas search --distributed "$@" || code=$?
# 143: stopped by SIGTERM, and everything is saved.
if [ "$code" -eq 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
