#!/usr/bin/env bash
# Evaluate a checkpoint on a Slurm cluster: one agent of torchrun per node, one process per GPU.
#   bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]
# Environment: GPUS (8 in all), GPUS_PER_NODE (8 at most), CPUS_PER_GPU (4), SRUN_ARGS; PORT, PYTHON.
# GPUS_PER_NODE=0 with PROCESSES=N tests on the CPUs of one node in N processes.
. "$(dirname "$0")/dist_common.sh"
require 4 "$@"
launch_slurm "$1" "$2" "$tools/dist_test.sh" "$3" "$4" -- "${@:5}"
