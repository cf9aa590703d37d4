#!/usr/bin/env bash
# Train in several processes: one per GPU, or with gloo on a machine without GPUs.
#   bash tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
# Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT for several machines; PYTHON; OMP_NUM_THREADS.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n 3,4p "$0" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
. "$here/dist_common.sh"
config=$1 processes=$2
shift 2
launch "$here/train.py" "$processes" "$config" "$@"
