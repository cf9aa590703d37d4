#!/usr/bin/env bash
# Evaluate a checkpoint in several processes: one per GPU, or with gloo on a machine without GPUs.
#   bash tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]
# Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT for several machines; PYTHON; OMP_NUM_THREADS.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n 3,4p "$0" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
. "$here/dist_common.sh"
config=$1 checkpoint=$2 processes=$3
shift 3
launch "$here/test.py" "$processes" "$config" "$checkpoint" "$@"
