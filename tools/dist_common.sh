# Sourced by dist_train.sh, dist_test.sh, slurm_train.sh and slurm_test.sh.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# require COUNT ARGUMENTS...: where there are fewer, print how the script is called, and end.
require() {
    [ $# -gt "$1" ] || { sed -n '3,5{/^#/p}' "$0" >&2; exit 2; }
}

# launch SCRIPT PROCESSES ARGUMENTS...: run SCRIPT in so many processes on this machine.
launch() {
    local script=$1 processes=$2
    shift 2
    local nodes=${NNODES:-1}
    local node=${NODE_RANK:-0} address=${MASTER_ADDR:-127.0.0.1}
    if [ "$nodes" -gt 1 ] && [ -n "${SLURM_NODEID:-}" ]; then
        # within srun: Slurm knows which node this is, and the first one is the meeting place
        node=${NODE_RANK:-$SLURM_NODEID}
        local hosts=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST")}
        address=${hosts%%$'\n'*}  # not "| head -n 1", whose early end pipefail takes for an error
    fi
    case $processes in
        ''|*[!0-9]*|0) echo "the number of processes must be 1 or more, not '$processes'" >&2; exit 2 ;;
    esac
    if ! command -v "${PYTHON:-python}" > /dev/null; then
        echo "there is no ${PYTHON:-python}: activate the environment first, as in" \
            "'. .venv/bin/activate', or name its interpreter in PYTHON" >&2
        exit 2
    fi
    exec "${PYTHON:-python}" "$tools/launch.py" --nnodes="$nodes" --node_rank="$node" \
        --master_addr="$address" ${PORT:+--master_port="$PORT"} \
        --nproc_per_node="$processes" "$script" "$@" --launcher pytorch
}

# launch_slurm PARTITION JOB SCRIPT POSITIONAL... -- OPTIONS...: run SCRIPT POSITIONAL PROCESSES
# OPTIONS on every node that GPUS and GPUS_PER_NODE ask for.
launch_slurm() {
    local partition=$1 job=$2 script=$3
    shift 3
    local positional=()
    while [ "$1" != -- ]; do positional+=("$1"); shift; done
    shift
    local gpus=${GPUS:-8} processes
    local per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    local resources=()
    if [ "$per_node" -eq 0 ]; then
        export NNODES=1
        processes=${PROCESSES:-1}
    else
        if [ $((gpus % per_node)) -ne 0 ]; then
            echo "GPUS=$gpus is no multiple of GPUS_PER_NODE=$per_node" >&2
            exit 2
        fi
        export NNODES=$((gpus / per_node))
        processes=$per_node
        resources=(--gres="gpu:$per_node")
    fi
    # the same port on all nodes, another one for every job
    export PORT=${PORT:-$((20000 + ${SLURM_JOB_ID:-$$} % 10000))}
    # SRUN_ARGS holds several words
    # shellcheck disable=SC2086
    exec srun -p "$partition" --job-name="$job" "${resources[@]}" --nodes="$NNODES" \
        --ntasks="$NNODES" --ntasks-per-node=1 --cpus-per-task=$((processes * ${CPUS_PER_GPU:-4})) \
        --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
        bash "$script" "${positional[@]}" "$processes" "$@"
}
