"""Steps that every command-line tool takes: find the config, check paths, report errors."""

import atexit
import errno
import io
import linecache
import os
import re
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import mmengine
import torch
from mmengine.config import Config

import mmn_plugin
from mmn_plugin.engine.agreement import let_others_end_first
from mmn_plugin.paths import config_root, find_config, tool_root

from .config_mistakes import explain_config_mistake, require_counts
from .config_options import idle_options
from .told_once import tell_once

# Folders whose `raise` statements are addressed to the user rather than signs of a bug.
_MMENGINE = Path(mmengine.__file__).parent
_SPEAKING = (
    Path(mmn_plugin.__file__).parent,
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


def print_warning(text: str) -> None:
    """Print a warning on the standard error stream, of several processes in the first alone."""
    if os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0':
        print(f'Warning: {text}', file=sys.stderr, flush=True)


def load_config(
    name: str | bytes | os.PathLike,
    options: dict | None = None,
    warn: Callable[[str], None] = print_warning,
) -> Config:
    """Read a config by path, or by its name in this package.

    Args:
        name (str | bytes | PathLike): a path; ``mmn_plugin::NAME.py``; or ``NAME.py`` of a config
            of this package (where no such file lies in the current folder).
        options (dict, optional): values merged over it (``--cfg-options``). Defaults to None.
        warn (Callable): gets one sentence for every option that changes nothing. Defaults to
            `print_warning`.

    Returns:
        Config: the config.

    Raises:
        FileNotFoundError: there is no such config (the message lists this package's), or one that
            it inherits from is missing.
        ValueError: the file is not valid Python, or running it fails; or a size, such as
            ``train_dataloader.batch_size``, is less than it can be.
    """
    name = os.fsdecode(name)
    if '::' not in name and not Path(name).is_file():
        if not (config_root() / name).is_file() and len(Path(name).parts) > 1:
            raise FileNotFoundError(f'there is no config {name} (working folder: {Path.cwd()})')
        try:
            name = str(find_config(name))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'{error}; nor does {name!r} lie in the current folder, {Path.cwd()}'
            ) from None
    try:
        config = Config.fromfile(name)
    except SyntaxError as error:
        raise ValueError(f'{name} is not valid Python: {error}') from None
    except FileNotFoundError as error:
        if error.filename is None:  # raised for the user to read
            raise
        raise FileNotFoundError(
            f'{name} inherits (_base_) from {error.filename}, which does not exist'
        ) from None
    except NameError as error:
        raise ValueError(f'{name} cannot be run: {error}') from None
    except ImportError as error:  # MMEngine's text lists the whole search path
        reason = ' '.join(str(error).partition(', the current sys.path')[0].split())
        raise ValueError(
            f'{name} cannot be run: {reason}; the folder of what it imports must be in PYTHONPATH'
        ) from None
    if options:
        for text in idle_options(config, options):
            warn(text)
        config.merge_from_dict(options)
    require_counts(config)
    return config


def require_checkpoint(path: str | bytes | os.PathLike) -> str:
    """Make sure that a checkpoint is there before a model is built for it.

    Args:
        path (str | bytes | PathLike): a file, or a URL, which is left to MMEngine.

    Returns:
        str: ``path``; absolute where a colon in it might be read as that of a URL.

    Raises:
        FileNotFoundError: there is no such file; the message names the ``.pth`` files beside it.
    """
    path = os.fsdecode(path)
    if Path(path).is_file():
        return str(Path(path).absolute()) if ':' in path else path
    if '://' in path:
        return path
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    beside = ', '.join(sorted(p.name for p in folder.glob('*.pth'))) or 'none'
    raise FileNotFoundError(f'there is no checkpoint {path} (.pth files in {folder}: {beside})')


def require_device(name: str) -> str:
    """Make sure that PyTorch can put a tensor there.

    Args:
        name (str): such as ``cpu`` or ``cuda:0``.

    Returns:
        str: ``name``.

    Raises:
        ValueError: there is no such device.
    """
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f'the device {name!r} cannot be used here: {reason}') from None
    return name


def end_distributed(runner, code: int = 0) -> None:
    """End a process of a distributed run that is over; does nothing in an ordinary run.

    gloo's threads can outlive the interpreter, which then ends now and then with "terminate called
    without an active exception" (https://github.com/pytorch/pytorch/issues/190489), and a finished
    training counts as failed; ``destroy_process_group`` alone does not prevent it. So whatever is
    still to be written is written here, and the process ends without tearing down the rest.

    Args:
        runner (Runner): the runner; its visualisation back ends are closed.
        code (int): exit code. Defaults to 0.
    """
    if not torch.distributed.is_initialized():
        return
    try:
        runner.visualizer.close()
    except Exception as error:  # figures are saved; a back end's end must not undo the run
        print(f'closing the visualiser failed: {error}', file=sys.stderr)
    torch.distributed.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


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
