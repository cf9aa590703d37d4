"""Read configs, and look whether what a command names is there."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config

from mmn_plugin.paths import config_root, find_config

from .config_options import idle_options
from .counts import require_counts


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
