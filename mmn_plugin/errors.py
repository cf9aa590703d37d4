"""Errors as messages: what is for the user, and said once."""

import errno
import hashlib
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
from types import TracebackType

import mmengine
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import get_world_size

from .files import tool_root


def mark_explained() -> None:
    """Let ``tools/launch.py`` know that a message says why this process ends as it does.

    Raises:
        OSError: If it cannot be written.
    """
    folder = os.environ.get('MMN_LAUNCH_FOLDER')
    if folder:
        (Path(folder) / f'rank_{os.environ.get("RANK", "0")}').touch()


def tell_once(message: str, patience: float = 2.0) -> bool:
    """Whether this process is the one to print an error that it ends with.

    Under ``tools/launch.py`` the processes of a machine share a folder (``MMN_LAUNCH_FOLDER``).
    Each leaves a file there that says that its failure is explained. Of those with the same message
    one prints it: the first on the machine, for which the others wait a little; while they wait
    the launcher usually ends them. Without that folder, or where it cannot be written, every
    process prints.

    Args:
        message (str): The message.
        patience (float): Seconds that the other processes give the first. Defaults to 2.

    Returns:
        bool: False if another process of this machine has printed the same message.
    """
    folder = os.environ.get('MMN_LAUNCH_FOLDER')
    if not folder:
        return True
    claim = Path(folder) / f'message_{hashlib.sha256(message.encode()).hexdigest()}'
    try:
        mark_explained()
        if os.environ.get('LOCAL_RANK', '0') != '0':
            deadline = time.monotonic() + patience
            while not claim.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        claim.touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        pass
    return True


_MMENGINE = Path(mmengine.__file__).parent
_CONFIG = str(_MMENGINE / 'config' / 'config.py')
_BUILD = str(_MMENGINE / 'registry' / 'build_functions.py')
_OPTIMIZER = str(_MMENGINE / 'optim' / 'optimizer' / 'default_constructor.py')
_VIS_BACKENDS = str(_MMENGINE / 'visualization' / 'vis_backend.py')
_PACKAGES = dict(TensorboardVisBackend='tensorboard', WandbVisBackend='wandb')
_RUNNER = str(_MMENGINE / 'runner' / 'runner.py')
_ARGUMENTS = re.compile(
    r'(?:(\w+)\.)?__init__\(\) (?:got an unexpected keyword argument|missing \d+ required)|'
    r'\w+\(\) takes no arguments'
)
# Methods of Runner that call something with a part of the config, and the part.
_CALLS = dict(build_dataloader='a dataloader', setup_env='env_cfg', __init__='randomness')


def explain_config_mistake(error: Exception) -> str | None:
    """Say in one line which setting an error comes from.

    Known are a setting that is absent, one that the class it is for does not take (or one that the
    class needs), an unknown type of optimiser, and a visualisation back end whose package cannot be
    imported.

    Args:
        error (Exception): A caught error.

    Returns:
        str | None: The message; None for any other error.
    """
    frames = _frames(error.__traceback__)
    if not frames:
        return None
    if isinstance(error, KeyError | AttributeError):
        return _absent_setting(error, frames)
    if isinstance(error, TypeError):
        return _unknown_argument(error, frames) or _unknown_optimiser(frames)
    if isinstance(error, ImportError):
        return _absent_back_end(error, frames)
    return None


def _frames(trace: TracebackType | None) -> list:
    frames = []
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    return frames


def _absent_setting(error: Exception, frames: list) -> str | None:
    """``config.model`` or ``config['model']`` where there is none."""
    code = frames[-1].f_code
    if code.co_filename != _CONFIG or code.co_name not in ('__missing__', '__getattr__'):
        return None
    part, key = frames[-1].f_locals.get('self'), frames[-1].f_locals.get('name')
    if not isinstance(part, ConfigDict) or key is None:
        return None
    # the caller's config has the file's name; the part may belong to a copy that MMEngine made
    configs = [
        value for frame in frames for value in frame.f_locals.values() if isinstance(value, Config)
    ]
    where = next((config.filename for config in configs if config.filename), 'the config')
    paths = (_path_of(part, config._cfg_dict) for config in configs)
    path = next((path for path in paths if path is not None), '…')
    return f'{where} lacks the setting `{f"{path}.{key}".lstrip(".")}`'


def _path_of(part: ConfigDict, whole, path: str = '') -> str | None:
    """Dotted path of a part of a config, '' for the whole."""
    if whole is part:
        return path
    items = whole.items() if isinstance(whole, dict) else enumerate(whole)
    for key, value in items:
        if isinstance(value, dict | list | tuple):
            found = _path_of(part, value, f'{path}.{key}'.lstrip('.'))
            if found is not None:
                return found
    return None


def _unknown_argument(error: TypeError, frames: list) -> str | None:
    """A class that a config names, or what the Runner calls, got a setting it does not take."""
    last = frames[-1].f_code
    if (
        'unexpected keyword' in str(error)
        and last.co_filename == _RUNNER
        and (last.co_name in _CALLS)
    ):
        return f'{_CALLS[last.co_name]} of the config: {error}'
    if not _ARGUMENTS.match(str(error)):
        return None
    # below the registry's call there may be constructors that call their base class's
    constructors = list(frames)
    while constructors and constructors[-1].f_code.co_name == '__init__':
        constructors.pop()
    if not constructors or constructors[-1].f_code.co_filename != _BUILD:
        return None
    built = constructors[-1].f_locals.get('obj_cls')
    return f"dict(type='{getattr(built, '__name__', built)}', ...) of the config: {error}"


def _unknown_optimiser(frames: list) -> str | None:
    """The type of an optimiser that nobody registered: MMEngine calls None."""
    for frame in frames:
        if frame.f_code.co_filename == _OPTIMIZER and 'optimizer_cls' in frame.f_locals:
            if frame.f_locals['optimizer_cls'] is not None:
                return None
            name = frame.f_locals.get('optimizer_cfg', {}).get('type')
            return (
                f'optim_wrapper.optimizer.type of the config is {name!r}, and there is no such '
                'optimiser: give the name of one of torch.optim, such as AdamW'
            )
    return None


def _absent_back_end(error: ImportError, frames: list) -> str | None:
    """A back end of the visualiser whose package cannot be imported: MMEngine raises anew."""
    if frames[-1].f_code.co_filename != _VIS_BACKENDS or error.__context__ is None:
        return None
    name = type(frames[-1].f_locals.get('self')).__name__
    package = _PACKAGES.get(name)
    remedy = f'run `pip install {package}`' if package else str(error)
    return (
        f'visualizer.vis_backends of the config holds {name}, whose package cannot be imported '
        f'({error.__context__}): {remedy}, or take it out of visualizer.vis_backends'
    )


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
