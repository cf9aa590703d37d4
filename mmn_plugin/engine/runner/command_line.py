"""Steps that every command-line tool takes: find the config, check paths, report errors."""

import errno
import io
import linecache
import os
import re
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.dist import get_world_size

from mmn_plugin.paths import tool_root

from .config_mistakes import _MMENGINE, explain_config_mistake
from .told_once import tell_once

# Folders whose `raise` statements are addressed to the user rather than signs of a bug.
_SPEAKING = (
    Path(__file__).resolve().parent,
    tool_root(),
    *(_MMENGINE / name for name in ('config', 'registry', 'fileio', 'utils')),
)
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}
# What the communication between processes says where another one has ended.
_LOST = re.compile(
    'Connection (closed by|reset by) peer|Broken pipe|pair closure|remote process exited|'
    'Socket closed|Connection refused'
)
_INTERRUPTED = 130  # 128 + SIGINT
_FRAME = re.compile(r'^ *File "(.+)", line (\d+)')


@contextmanager
def plain_errors():
    """End the process with one message, exit code 1, where an error is addressed to the user.

    That is an error raised on purpose by this package, or by MMEngine's config, registry or file
    code; also inside a data loader's worker; and the mistakes in a config that
    :func:`explain_config_mistake` knows. Any other error keeps its traceback, and so do all
    where the environment variable ``MMN_TRACEBACK`` is set.

    Where several processes of a machine end with the same message, one prints it (see
    :func:`tell_once`).
    A process that fails only because another one has ended waits for some seconds, so that the
    other's error stands first and the launcher reports that one; most often it is ended meanwhile.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what it cannot show shall end nothing
            stream.reconfigure(errors='backslashreplace')
    try:
        yield
    except KeyboardInterrupt:
        if tell_once('interrupted'):
            print('Interrupted', file=sys.stderr, flush=True)
        _end_interrupted()
    except Exception as error:
        message = user_message(error)
        if message is None and lost_contact(error):
            let_others_end_first()
            message = 'another process of this run has ended; its error, or the launcher, says why'
        if message is None or os.environ.get('MMN_TRACEBACK'):
            raise
        rank = os.environ.get('RANK', '0')
        prefix = 'Error' if rank == '0' else f'Error on rank {rank}'
        if tell_once(message):
            print(f'{prefix}: {message}', file=sys.stderr, flush=True)
        sys.exit(1)


def _end_interrupted() -> None:
    """End as a shell reports it; in a group of processes without waiting for what it does."""
    sys.stdout.flush()
    if torch.distributed.is_initialized():
        os._exit(_INTERRUPTED)
    sys.exit(_INTERRUPTED)


def user_message(error: Exception) -> str | None:
    """Text of an error that was raised for the user to read, else None.

    Args:
        error (Exception): a caught error; one from a data loader's worker carries the worker's
            traceback in its text.
    """
    text = str(error.args[0]) if error.args and isinstance(error, KeyError) else str(error)
    if text.startswith('Caught ') and 'Original Traceback' in text:
        return _worker_message(text)
    mistake = explain_config_mistake(error)
    if mistake:
        return mistake
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return None
    if isinstance(error, UnicodeEncodeError) and error.encoding in ('ascii', 'latin-1'):
        found = error.object[error.start : error.end]
        return (
            f'{found!a} cannot be part of a name in this locale, whose encoding is '
            f'{error.encoding}: set LC_ALL=C.UTF-8, or PYTHONUTF8=1'
        )
    if isinstance(error, torch.distributed.DistNetworkError):
        return _network_message(text)
    if isinstance(error, OSError) and error.errno in _DISK:
        where = error.filename or 'a file of the run (in its work folder or /dev/shm)'
        return f'{error.strerror}: {where}'
    filename = trace.tb_frame.f_code.co_filename
    return text if _speaks(filename, trace.tb_lineno) else None


def _network_message(text: str) -> str | None:
    """Why processes cannot meet; None where they have met, and one has ended since."""
    if torch.distributed.is_initialized():
        return None
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


def lost_contact(error: Exception) -> bool:
    """Whether a collective operation failed because another process is gone."""
    return (
        torch.distributed.is_initialized()
        and isinstance(error, RuntimeError)
        and _LOST.search(str(error)) is not None
    )


def _worker_message(text: str) -> str | None:
    frames = [m for m in map(_FRAME.match, text.splitlines()) if m]
    if not frames or not _speaks(frames[-1][1], int(frames[-1][2])):
        return None
    after = text[text.rindex(frames[-1][0]) :].splitlines()[1:]
    lines = [line for line in after if not line.startswith('    ')]
    return '\n'.join(lines).partition(': ')[2].strip('\'"') or None


def _speaks(filename: str, line: int) -> bool:
    if not any(folder in Path(filename).parents for folder in _SPEAKING):
        return False
    return linecache.getline(filename, line).strip().startswith('raise ')


def let_others_end_first(seconds: float = 5.0) -> None:
    """Wait before ending on account of another rank's failure.

    A launcher reports the process that ended first as the cause, and ends the others by SIGTERM,
    which is what usually cuts this short.
    """
    if get_world_size() == 1:
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(seconds)
