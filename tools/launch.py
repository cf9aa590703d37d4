"""Start a script in several processes: torchrun, without its report where a message says enough.

dist_train.sh and dist_test.sh call it: ``python tools/launch.py [options of torchrun] SCRIPT ...``.
A signal to it is handed on to the processes, which then have time to save; `exit_status` says how
it ends.
"""

import logging
import os
import signal
import sys
import tempfile
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path

from torch.distributed import DistNetworkError
from torch.distributed.elastic.multiprocessing import SignalException, SubprocessContext
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run

# torchrun's logger of processes that ended; it speaks before it is known why they did
_LOGGER = logging.getLogger('torch.distributed.elastic.multiprocessing.api')
_STOPPED = -15  # by torchrun, after another process failed
_FAILED, _USAGE = 1, 2  # in the second case argparse has printed what is wrong
_PREEMPTED = 143  # as PreemptionHook and a shell have it: 128 + SIGTERM

TIMEOUT = 'TORCH_ELASTIC_SHUTDOWN_TIMEOUT'
SIGNALS = 'TORCHELASTIC_SIGNALS_TO_HANDLE'
# torchrun's own 30 s are less than an iteration and a checkpoint may take
DEFAULTS = {
    TIMEOUT: ('shutdown_timeout', '600'),
    SIGNALS: ('signals_to_handle', 'SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2'),
}


def parse_args(argv):
    """Read torchrun's options; the environment sets which signals it hands on and how long.

    Args:
        argv (list[str]): command line.

    Returns:
        Namespace: torchrun's, and ``shutdown_timeout`` (int) and ``signals_to_handle`` (str) also
        where this torchrun has no such options and ignores them; `Ending` sees to it there.
    """
    parser, chosen = get_args_parser(), {}
    for name, (option, default) in DEFAULTS.items():
        option_variable = f'PET_{option.upper()}'  # torchrun's way of giving any option
        chosen[option] = os.environ.get(option_variable) or os.environ.get(name) or default
    if not chosen['shutdown_timeout'].isdecimal():
        parser.error(f'{TIMEOUT} is a whole number of seconds, not {chosen["shutdown_timeout"]}')
    for name in chosen['signals_to_handle'].split(','):
        if name not in signal.Signals.__members__:
            parser.error(f'{SIGNALS} lists signals, such as SIGTERM,SIGUSR1; {name!r} is none')
    parser.set_defaults(**chosen | dict(shutdown_timeout=int(chosen['shutdown_timeout'])))
    return parser.parse_args(argv)


class HeldBack(logging.Filter):
    """Keeps log records until it is known whether they are wanted."""

    def __init__(self):
        super().__init__()
        self.records = []

    def filter(self, record):
        """Keep the record, and let nobody else have it."""
        self.records.append(record)
        return False

    def release(self):
        """Log what was kept."""
        _LOGGER.removeFilter(self)
        for record in self.records:
            _LOGGER.handle(record)


class Ending:
    """How torchrun ends the processes of this machine: with time to save, and known exit codes.

    Signals that come while it waits for them are handed on and do not cut it short, for schedulers
    send several; a second SIGINT (Ctrl-C) kills the processes.

    Args:
        timeout (int): seconds from a signal to the launcher until the processes are killed. After
            the failure of one the others get torchrun's 30.
        signals (list[Signals]): those to hand on.

    Attributes:
        codes (list[int]): exit codes of the processes once they have ended, negative for a signal.
    """

    def __init__(self, timeout, signals):
        self.timeout = timeout
        self.signals = signals
        self.codes = []

    def install(self):
        """Take part wherever torchrun ends processes."""
        for number in self.signals:
            if number not in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
                signal.signal(number, _raise)  # without the option torchrun handles those four
        close = SubprocessContext.close

        def close_in_time(context, death_sig=None, timeout=30):
            if death_sig is not None:  # without the option torchrun gives 30 s here as well
                timeout = self.timeout
            self._close(context, death_sig, partial(close, context, death_sig, timeout))

        SubprocessContext.close = close_in_time

    def _close(self, context, death_sig, close):
        processes = context.subprocess_handlers.values()

        def hand_on(number, frame):
            again = death_sig == number == signal.SIGINT
            for process in processes:
                with suppress(ProcessLookupError):  # it has ended just now
                    if process.proc.poll() is None:
                        process.close(signal.SIGKILL if again else signal.Signals(number))

        handlers = {number: signal.signal(number, hand_on) for number in self.signals}
        try:
            close()
        finally:
            codes = [process.proc.poll() for process in processes]
            self.codes = [-signal.SIGKILL if code is None else code for code in codes]
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _raise(number, frame):
    raise SignalException(f'signal {number}', signal.Signals(number))


def exit_status(codes, number=None):
    """Exit status of the launcher, from which a script tells preemption from failure.

    Args:
        codes (list[int]): exit codes of the processes, negative for a signal.
        number (Signals, optional): signal that the launcher has got. Defaults to None.

    Returns:
        int: 0 if all have succeeded; else the code of those that ended of themselves, if they
        agree, such as 143 of ``PreemptionHook``, and 1 if they do not or one was killed; where
        SIGTERM or the launcher's signal ended them, 143 (130 for SIGINT, 129 and 131 for SIGHUP
        and SIGQUIT, which are given by hand).
    """
    if codes and not any(codes):
        return 0
    own = set(codes) - {0, _STOPPED, -(number or 0)}
    if own:
        return own.pop() if len(own) == 1 and min(own) > 0 else _FAILED
    by_hand = number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    return 128 + number if by_hand else _PREEMPTED


def srun_status(status, nodes):
    """The same, so that srun, which reports the highest of its tasks, reports a failure.

    It stops the tasks of the other machines (143) when the one of this machine has failed.

    Args:
        status (int): exit status of this machine.
        nodes (str): number of machines.
    """
    one_of_several = nodes != '1' and 'SLURM_NODEID' in os.environ
    return 255 if one_of_several and status in (_FAILED, _USAGE) else status


def explained(failures, folder):
    """Whether all processes that failed of themselves have printed a message for the user.

    Args:
        failures (dict): rank -> torchrun's record of its failure.
        folder (Path): where a process leaves a file named after its rank when it prints one.
    """
    own = {rank: failure for rank, failure in failures.items() if failure.exitcode != _STOPPED}
    return bool(own) and all(
        failure.exitcode == _USAGE or (folder / f'rank_{rank}').exists()
        for rank, failure in own.items()
    )


def launch(args, folder):
    """Run the script in its processes.

    Args:
        args (Namespace): from `parse_args`.
        folder (Path): see `explained`.

    Returns:
        int: exit status.
    """
    signals = [signal.Signals[name] for name in args.signals_to_handle.split(',')]
    held, ending = HeldBack(), Ending(args.shutdown_timeout, signals)
    ending.install()
    _LOGGER.addFilter(held)
    try:
        run(args)
        return 0
    except ChildFailedError as error:
        if not explained(error.failures, folder):
            held.release()
            print(error, file=sys.stderr, flush=True)
        return exit_status([failure.exitcode for failure in error.failures.values()])
    except SignalException as error:
        status = exit_status(ending.codes, error.sigval)
        text = f'{error.sigval.name}: the processes have ended'
        if -signal.SIGKILL in ending.codes:
            text += (
                f'; some were killed: a signal leaves them {args.shutdown_timeout} s, which '
                f'{TIMEOUT} sets'
            )
        print(f'{text}; exit status {status}', file=sys.stderr, flush=True)
        return status
    except Exception as error:
        if isinstance(error, DistNetworkError) and 'EADDRINUSE' in str(error):
            print(
                f'Error: port {args.master_port} of this machine is in use by another program or '
                'run: set PORT to another one, the same on all machines',
                file=sys.stderr,
                flush=True,
            )
            return _FAILED
        held.release()
        traceback.print_exc()
        return _FAILED
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)  # all is over


def main():
    """Run the script in its processes, and end with `exit_status`."""
    args = parse_args(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix='mmn_plugin_') as folder:
        os.environ['MMN_LAUNCH_FOLDER'] = folder  # see mmn_plugin/engine/runner/told_once.py
        status = launch(args, Path(folder))
    sys.exit(srun_status(status, args.nnodes))


if __name__ == '__main__':
    main()
