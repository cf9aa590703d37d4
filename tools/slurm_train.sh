#!/usr/bin/env bash
# Train on a Slurm cluster: one agent of torchrun per node, one process per GPU.
#   bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
# Environment: GPUS (8 in all), GPUS_PER_NODE (8 at most), CPUS_PER_GPU (4), SRUN_ARGS; PORT, PYTHON.
# GPUS_PER_NODE=0 with PROCESSES=N trains on the CPUs of one node in N processes.
. "$(dirname "$0")/dist_common.sh"
require 3 "$@"
launch_slurm "$1" "$2" "$tools/dist_train.sh" "$3" -- "${@:4}"
