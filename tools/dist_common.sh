# Sourced by dist_train.sh and dist_test.sh.

# launch SCRIPT PROCESSES ARGUMENTS...: run SCRIPT in so many processes on this machine.
launch() {
    local script=$1 processes=$2
    shift 2
    local python=${PYTHON:-python} nodes=${NNODES:-1} port=${PORT:-}
    case $processes in
        ''|*[!0-9]*|0) echo "the number of processes must be 1 or more, not '$processes'" >&2; exit 2 ;;
    esac
    if [ -z "$port" ]; then
        if [ "$nodes" -gt 1 ]; then
            port=29500  # must be the same on every machine
        else
            port=$("$python" -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])')
        fi
    fi
    if [ -z "${OMP_NUM_THREADS:-}" ]; then
        # torchrun would give every process one thread, however many cores there are
        local cores
        cores=$("$python" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
        export OMP_NUM_THREADS=$((cores > processes ? cores / processes : 1))
    fi
    export MKL_NUM_THREADS=${MKL_NUM_THREADS:-$OMP_NUM_THREADS}
    exec "$python" -m torch.distributed.run --nnodes="$nodes" --node_rank="${NODE_RANK:-0}" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="$port" \
        --nproc_per_node="$processes" "$script" "$@" --launcher pytorch
}
