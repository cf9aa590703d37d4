#!/usr/bin/env bash
# Train in several processes: one per GPU, or with gloo on a machine without GPUs.
#   bash tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
# Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT for several machines; PYTHON; OMP_NUM_THREADS.
. "$(dirname "$0")/dist_common.sh"
require 2 "$@"
launch "$tools/train.py" "$2" "$1" "${@:3}"
