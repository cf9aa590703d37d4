# Sourced by quickstart.sh and run_tests.sh: makes .venv (or $MMN_VENV) with the tested versions
# and an editable install of this checkout, or reuses it where it is up to date.
# With $MMN_PYTHON that interpreter is used as it is, with this checkout on its path, and nothing is
# installed.
# setup_venv [REQUIREMENTS [FOLDER]]  leaves the interpreter's path in $PYTHON.

setup_venv() {
    local root requirements folder stamp wanted base
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    requirements=${1:-$root/requirements/pinned.txt}
    folder=${2:-${MMN_VENV:-$root/.venv}}
    if [ -n "${MMN_PYTHON:-}" ]; then
        PYTHON=$MMN_PYTHON
        export PYTHON PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
        return 0
    fi
    base=${MMN_BASE_PYTHON:-}
    if [ -z "$base" ]; then
        for base in python3 python3.13 python3.12 python3.11; do
            "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null && break
            base=
        done
    fi
    if [ -z "$base" ]; then
        echo 'Error: this needs Python 3.11 or later (none of python3, python3.11 to 3.13 is)' >&2
        return 1
    fi
    # the stamp names everything an installation depends on
    wanted=$(cat "$requirements" "$root/setup.py" "$root/pyproject.toml" "$root/requirements/runtime.txt" \
        | cksum)" $root"
    case $folder in /*) ;; *) folder=$PWD/$folder ;; esac
    case $folder in *:*)
        echo "Error: $folder holds a colon, which PATH cannot: name another folder in MMN_VENV" >&2
        return 1 ;;
    esac
    stamp=$folder/.mmn_plugin_stamp
    PYTHON=$folder/bin/python
    export PYTHON
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        echo "using $folder"
        return 0
    fi
    echo "installing into $folder (once; some minutes) ..."
    if [ ! -x "$PYTHON" ] || ! "$PYTHON" -m pip --version > /dev/null 2>&1; then
        if [ ! -f "$folder/pyvenv.cfg" ] && [ -n "$(ls -A "$folder" 2> /dev/null)" ]; then
            echo "Error: $folder is not empty and no virtual environment; name another in MMN_VENV" >&2
            return 1
        fi
        if ! "$base" -m venv --clear "$folder"; then
            echo "Error: $base cannot make a virtual environment. On Debian or Ubuntu:" >&2
            echo "       sudo apt-get install python3-venv" >&2
            return 1
        fi
    fi
    local indexes=()
    # without an NVIDIA GPU the builds of PyTorch for the CPU spare some gigabytes of download
    if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi > /dev/null \
        && "$PYTHON" -c 'import socket; socket.create_connection(("download.pytorch.org", 443), 5)' \
            2> /dev/null; then
        indexes=(--extra-index-url https://download.pytorch.org/whl/cpu)
    fi
    "$PYTHON" -m pip install -q --disable-pip-version-check "${indexes[@]}" -r "$requirements" \
        && "$PYTHON" -m pip install -q --disable-pip-version-check --no-deps \
            --no-build-isolation -e "$root" \
        && echo "$wanted" > "$stamp"
}

# setup_extras [NAME ...]: requirements/NAME.txt on top, into the same environment; without a NAME what
# the tests of the page (Gradio, playwright), of the export (ONNX) and of Weights & Biases need. Such
# tests are skipped where it cannot be installed.
setup_extras() {
    local root folder name wanted
    [ -z "${MMN_PYTHON:-}" ] || return 0
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    folder=$(dirname "$(dirname "$PYTHON")")
    [ $# -gt 0 ] || set -- web browser onnx wandb
    for name in "$@"; do
        wanted=$(cat "$root/requirements/$name.txt" "$root/requirements/pinned.txt" | cksum)
        [ "$(cat "$folder/.mmn_plugin_$name" 2> /dev/null)" != "$wanted" ] || continue
        echo "installing requirements/$name.txt ..."
        if "$PYTHON" -m pip install -q --disable-pip-version-check \
            -c "$root/requirements/pinned.txt" -r "$root/requirements/$name.txt"; then
            echo "$wanted" > "$folder/.mmn_plugin_$name"
        else
            echo "requirements/$name.txt cannot be installed: what needs it is skipped" >&2
        fi
    done
}
