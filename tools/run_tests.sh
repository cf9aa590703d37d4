#!/usr/bin/env bash
# Run all tests in .venv, which is made if needed (the same that quickstart.sh uses).
#   bash tools/run_tests.sh [--lowest] [options of pytest]
# --lowest: in a fresh scratch environment with the versions of requirements/lowest.txt instead.
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
# two processes of one thread each would fight for the cores of a small machine otherwise
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false
"$PYTHON" -m pytest -q "$@"
