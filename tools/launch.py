"""Start a script in several processes with torchrun: ``launch.py [its options] SCRIPT ...``.

dist_train.sh and dist_test.sh call it. Beyond what torchrun does, a signal leaves the processes
600 s to save (``TORCH_ELASTIC_SHUTDOWN_TIMEOUT``), SIGUSR1 and SIGUSR2 are handed on as well where
this torchrun knows the option, the processes share the cores, one machine takes a free port, and
the exit status tells preemption from failure.
"""

import os
import signal
import sys
from contextlib import suppress

from torch.distributed import DistNetworkError
from torch.distributed.elastic.multiprocessing import SignalException, SubprocessContext
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.utils.distributed import get_free_port
from torch.distributed.run import get_args_parser, run

TIMEOUT, SIGNALS = 'TORCH_ELASTIC_SHUTDOWN_TIMEOUT', 'TORCHELASTIC_SIGNALS_TO_HANDLE'
EXIT_CODES = []  # of the processes of this machine, negative for a signal


def close(context, death_sig=None, timeout=30, stock=SubprocessContext.close):
    """End the processes and note their exit codes; further signals do not cut the wait short.

    They are handed on, for schedulers send several. A second Ctrl-C kills.
    """
    processes = context.subprocess_handlers.values()

    def hand_on(number, frame):
        again = number == death_sig == signal.SIGINT
        for process in processes:
            with suppress(ProcessLookupError):  # it has ended
                process.close(signal.SIGKILL if again else signal.Signals(number))

    for name in os.environ[SIGNALS].split(','):
        signal.signal(signal.Signals[name], hand_on)
    stock(context, death_sig, timeout)
    codes = [process.proc.poll() for process in processes]
    EXIT_CODES[:] = [-signal.SIGKILL if code is None else code for code in codes]


def exit_status(codes, number=None):
    """Exit status of the launcher, from exit codes and the signal that it has got, if any.

    0 if all have succeeded; the code of those that ended of themselves, such as 143 of
    ``PreemptionHook``, where they agree; 143 (130 for SIGINT) where a signal ended all; else 1.
    """
    if codes and not any(codes):
        return 0
    own = set(codes) - {0, -signal.SIGTERM, -(number or 0)}
    if own:
        return own.pop() if len(own) == 1 and min(own) > 0 else 1
    return 128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


def parse_args():
    """The command line, and what is not said there."""
    os.environ.setdefault(TIMEOUT, '600')
    os.environ.setdefault(SIGNALS, 'SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2')
    parser = get_args_parser()
    parser.set_defaults(signals_to_handle=os.environ[SIGNALS], master_port=None)
    args = parser.parse_args()
    if args.master_port is None:  # several machines need the same
        args.master_port = get_free_port() if args.nnodes == '1' else 29500
    if args.nproc_per_node.isdecimal():  # torchrun would give each one thread
        cores = len(os.sched_getaffinity(0)) // int(args.nproc_per_node)
        threads = os.environ.setdefault('OMP_NUM_THREADS', str(max(cores, 1)))
        os.environ.setdefault('MKL_NUM_THREADS', threads)
    return args


def main():
    """Run the script in its processes."""
    args, status, text = parse_args(), 0, ''
    SubprocessContext.close = close
    try:
        run(args)
    except ChildFailedError as error:
        status, text = exit_status([one.exitcode for one in error.failures.values()]), error
    except SignalException as error:
        status = exit_status(EXIT_CODES, error.sigval)
        limit = f'; some were killed: a signal leaves them {os.environ[TIMEOUT]} s ({TIMEOUT})'
        killed = limit if -signal.SIGKILL in EXIT_CODES else ''
        text = f'{error.sigval.name}: the processes have ended; exit status {status}{killed}'
    except DistNetworkError as error:  # most often the port is in use
        status, text = 1, f'Error: port {args.master_port} of this machine: {error}'
    if text:
        print(text, file=sys.stderr)
    if status == 1 and args.nnodes != '1' and 'SLURM_NODEID' in os.environ:
        status = 255  # srun reports the highest of its tasks, and ends the others with 143
    sys.exit(status)


if __name__ == '__main__':
    main()
