#!/usr/bin/env bash
# Evaluate a checkpoint in several processes: one per GPU, or with gloo on a machine without GPUs.
#   bash tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]
# Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT for several machines; PYTHON; OMP_NUM_THREADS.
. "$(dirname "$0")/dist_common.sh"
require 3 "$@"
launch "$tools/test.py" "$3" "$1" "$2" "${@:4}"
