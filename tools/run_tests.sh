#!/usr/bin/env bash
# Run all tests in .venv, which is made if needed (the same that quickstart.sh uses).
#   bash tools/run_tests.sh [--lowest] [options of pytest]
# --lowest: in a fresh scratch environment with the versions of requirements/lowest.txt instead.
# Files of tests are shared out to as many workers as there are cores, four at most; a single file
# needs none. "-n 8" takes so many; "-n 0", none, so that "-s" shows what tests print.
# "--random-order 7" draws the order of files, and of the tests of each, from the seed 7.
# Other CPUs: with ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=AVX2 PyTorch computes as on one
# without AVX-512, with OMP_NUM_THREADS=2 in two threads; all tests pass there as well.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/tools/setup_venv.sh"
if [ "${1:-}" = --lowest ]; then
    shift
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    setup_venv "$root/requirements/lowest.txt" "$scratch/environment"
else
    setup_venv
    setup_extras
fi
cd "$root"
export PATH="$(dirname "$PYTHON"):$PATH"
# workers, and processes that tests start, would fight for the cores of a small machine otherwise
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false
# where this is set, every one of the processes would compile the package anew
unset PYTHONDONTWRITEBYTECODE
workers=()
if "$PYTHON" -c 'import xdist' 2> /dev/null; then  # $MMN_PYTHON may lack it
    # a file stays with one worker: its tests share processes; tests/conftest.py says which are first
    workers=(-n auto --dist loadfile --no-loadscope-reorder)
fi
"$PYTHON" -m pytest -q "${workers[@]}" "$@"
