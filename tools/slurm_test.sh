#!/usr/bin/env bash
# Evaluate a checkpoint on a Slurm cluster: one agent of torchrun per node, one process per GPU.
#   bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]
# Environment: GPUS (8 in all), GPUS_PER_NODE (8 at most), CPUS_PER_GPU (4), SRUN_ARGS; PORT, PYTHON.
# GPUS_PER_NODE=0 with PROCESSES=N tests on the CPUs of one node in N processes.
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n 3,5p "$0" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
. "$here/dist_common.sh"
partition=$1 job=$2 config=$3 checkpoint=$4
shift 4
launch_slurm "$partition" "$job" "$here/dist_test.sh" "$config" "$checkpoint" -- "$@"
