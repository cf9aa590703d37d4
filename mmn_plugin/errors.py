"""Errors for the user: one tree of exceptions, and what prints them as one line."""

import io
import os
import pickle
import re
import signal
import sys
import threading
import time
from contextlib import contextmanager


class UserError(Exception):
    """Something that the user can mend; the message says what was wrong, where, and what to do."""


class InputError(UserError, ValueError):
    """An argument, a setting, or the content of a file that cannot be used."""


class ConfigError(InputError):
    """A config that cannot be read, or that asks for what there is not."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that does not exist."""


class DownloadError(UserError, OSError):
    """Something that was not found here, and that the Hugging Face hub did not give."""


class CheckpointRefusedError(UserError, pickle.UnpicklingError):
    """A checkpoint that is damaged, or that holds more than tensors and plain data."""


class OperationError(UserError, RuntimeError):
    """A step that failed on this machine, or with what a user's component returned."""


class NonFiniteError(UserError, FloatingPointError):
    """NaN or Inf in training."""


# What the communication between processes says where another one has ended.
_LOST = re.compile(
    'Connection (closed by|reset by) peer|Broken pipe|pair closure|remote process exited|'
    'Socket closed|Connection refused'
)
_INTERRUPTED = 130  # 128 + SIGINT


@contextmanager
def plain_errors():
    """End the process with one line and exit code 1 where an error is addressed to the user.

    That is a `UserError`, also from a data loader's worker, and the few errors of the system that
    `user_message` knows. Any other error keeps its traceback, and so do all where the environment
    variable ``MMN_TRACEBACK`` is set. Ctrl-C ends the process with exit code 130.

    A process that fails only because another one has ended waits for some seconds, so that the
    other's error stands first and the launcher reports that one.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter it cannot show ends nothing
            stream.reconfigure(errors='backslashreplace')
    try:
        yield
    except KeyboardInterrupt:
        print('Interrupted', file=sys.stderr, flush=True)
        sys.stdout.flush()
        if _distributed():  # the other processes are not waited for
            os._exit(_INTERRUPTED)
        sys.exit(_INTERRUPTED)
    except Exception as error:
        message = user_message(error)
        if message is None and _distributed() and _LOST.search(str(error)):
            _let_others_end_first()
            message = 'another process of this run has ended; its error, or the launcher, says why'
        if message is None or os.environ.get('MMN_TRACEBACK'):
            raise
        rank = os.environ.get('RANK', '0')
        prefix = 'Error' if rank == '0' else f'Error on rank {rank}'
        print(f'{prefix}: {message}', file=sys.stderr, flush=True)
        sys.exit(1)


def user_message(error: Exception) -> str | None:
    """Text of an error that is addressed to the user, else None.

    Args:
        error (Exception): A caught error. PyTorch gives one of a data loader's worker the worker's
            traceback as its text, of which the message is the end.
    """
    text = str(error)
    if isinstance(error, UserError):
        head = rf'^(?:[\w.]+\.)?{type(error).__name__}: '
        return re.split(head, text, flags=re.MULTILINE)[-1].rstrip()
    if isinstance(error, UnicodeEncodeError) and error.encoding in ('ascii', 'latin-1'):
        found = error.object[error.start : error.end]
        return (
            f'{found!a} cannot be part of a name in this locale, whose encoding is '
            f'{error.encoding}: set LC_ALL=C.UTF-8, or PYTHONUTF8=1'
        )
    if type(error).__name__ == 'DistNetworkError' and not _distributed():
        return _network_message(text)
    if isinstance(error, OSError):  # a file, a disk, or the network
        where = error.filename or 'a file of the run (in its work folder or /dev/shm)'
        return f'{error.strerror}: {where}' if error.strerror else text
    return None


def _network_message(text: str) -> str:
    """Why the processes of a run cannot meet."""
    address, port = (os.environ.get(f'MASTER_{name}') for name in ('ADDR', 'PORT'))
    if 'EADDRINUSE' in text:
        return (
            f'port {port} of this machine is in use by another program or run: set another '
            'one, the same on all machines (PORT for dist_*.sh and slurm_*.sh, --master_port '
            'for torchrun)'
        )
    return (
        f'the first process of the run cannot be reached at {address}:{port} '
        f'({text.splitlines()[0]}): MASTER_ADDR and PORT must be the same on all machines, and '
        'reachable from each'
    )


def _distributed() -> bool:
    """Whether this process has joined a distributed run; does not import PyTorch to find out."""
    torch = sys.modules.get('torch')
    return torch is not None and torch.distributed.is_initialized()


def _let_others_end_first() -> None:
    """Wait some seconds before ending on account of another rank's failure.

    A launcher reports the process that ended first as the cause, and ends the others by SIGTERM,
    which is what usually cuts this short.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(5.0)
