"""Read configs, build what they describe, and look whether what they name is there."""

import difflib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import torch
from mmaction.registry import DATASETS, MODELS
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.runner import Runner

from mmn_plugin.errors import ConfigError, InputError, MissingFileError, UserError

from .files import find_config, nested
from .setting_types import require_component_types

# What is read of a config's top level beside the arguments of Runner.
_READ = {
    'runner_type',
    'custom_imports',
    'model_wrapper_cfg',
    'sync_bn',
    'find_unused_parameters',
    'activation_checkpointing',
    'efficient_conv_bn_eval',
    'compile',
    'extractor',
    'library',
    'long_video',
    'presence',
    'tracker',
    *inspect.signature(Runner.__init__).parameters,
} - {'self', 'cfg'}
# Parts of which MMEngine reads some keys by name, and so ignores any other. Elsewhere a part is
# built from its type, or handed to a call, and refuses what it does not know.
_READ_OF_PARTS = {
    'env_cfg': ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit', 'allow_tf32'),
    'auto_scale_lr': ('base_batch_size', 'enable'),
    'optim_wrapper.clip_grad': (
        'type',
        'max_norm',
        'norm_type',
        'error_if_nonfinite',
        'foreach',
        'clip_value',
    ),
    'optim_wrapper.paramwise_cfg': (
        'custom_keys',
        'bias_lr_mult',
        'bias_decay_mult',
        'norm_decay_mult',
        'dwconv_decay_mult',
        'flat_decay_mult',
        'dcn_offset_lr_mult',
        'bypass_duplicate',
    ),
    'optim_wrapper.paramwise_cfg.custom_keys.*': ('lr_mult', 'decay_mult'),
    '*_dataloader.dataset.data_prefix': ('features',),
}


def idle_options(config: Config, options: dict) -> list[str]:
    """Say which options of ``--cfg-options`` leave a run as it is, most often by a misspelt name.

    Args:
        config (Config): Before the options are merged.
        options (dict): Values by dotted keys.

    Returns:
        list[str]: One sentence per option, with the nearest name that there is.
    """
    return [
        f'--cfg-options {name}: {reason}' for name in options if (reason := _idle(config, name))
    ]


def _idle(config: Config, name: str) -> str | None:
    keys = name.split('.')
    if keys[0] not in _READ:
        elsewhere = [
            '.'.join(map(str, path))
            for path, _ in nested(config._cfg_dict)
            if path[1:] and path[0] in _READ and path[-1] == keys[0]
        ]
        if keys[0] in config:
            return (
                f'`{keys[0]}` is a variable, which the config used when it was read; to set it '
                f'now changes nothing{_hint(elsewhere)}'
            )
        nearest = elsewhere or difflib.get_close_matches(keys[0], {*_READ, *config}, n=1)
        return _unread('the config', keys[0], nearest)
    for depth, key in enumerate(keys[1:], 1):
        part = '.'.join(keys[:depth])
        known = next((of for path, of in _READ_OF_PARTS.items() if fnmatch(part, path)), None)
        if known and key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            return _unread(f'`{part}`', key, [f'{part}.{other}' for other in near])
    return None


def _unread(where: str, key: str, instead: list[str]) -> str:
    return (
        f'{where} has no setting `{key}`, and neither MMEngine nor mmn_plugin reads it'
        f'{_hint(instead)}'
    )


def _hint(instead: list[str]) -> str:
    return f'; did you mean {" or ".join(f"`{path}`" for path in instead[:4])}?' if instead else ''


# Numbers, and the least that each may be; PyTorch and MMEngine refuse less without naming them, or
# train nothing.
_COUNTS = {
    **{f'{split}_dataloader.batch_size': 1 for split in ('train', 'val', 'test')},
    **{f'{split}_dataloader.num_workers': 0 for split in ('train', 'val', 'test')},
    'train_cfg.max_epochs': 1,
    'train_cfg.val_interval': 1,
    'optim_wrapper.accumulative_counts': 1,
    'auto_scale_lr.base_batch_size': 1,
}


def require_counts(config: Config) -> None:
    """Make sure that sizes and counts of a config are whole numbers, and not too small.

    Raises:
        ValueError: Naming the first setting that is not.
    """
    for name, least in _COUNTS.items():
        part, key = name.split('.')
        settings = config.get(part)
        value = settings.get(key) if isinstance(settings, dict) else None
        if value is not None and (type(value) is not int or value < least):
            raise ConfigError(
                f'{name}={value!r} of the config: give a whole number of {least} or more'
            )


def _tower_sides(config: Config) -> dict[str, dict]:
    """Where a config describes a tower: what embeds its videos, and what embeds its sentences."""
    model = config.get('model') or {}
    return {'extractor': config.get('extractor'), 'model.tower': model.get('tower')}


def of_both_sides(config: Config, options: dict) -> dict:
    """Options of ``extractor`` as those of ``model.tower`` too where both are one tower, and back.

    Args:
        config (Config): Before the options are merged.
        options (dict): Values by dotted keys; one that is given for both sides stays as it is.
    """
    sides = _tower_sides(config)
    first, second = sides
    if sides[first] is None or sides[first] != sides[second]:
        return options
    more = {}
    for one, other in ((first, second), (second, first)):
        for name, value in options.items():
            if name.startswith(f'{one}.'):
                more[other + name.removeprefix(one)] = value
    return more | options


def require_one_revision(config: Config) -> None:
    """Make sure that videos and sentences are embedded by one revision of a tower.

    Raises:
        ValueError: Naming both settings.
    """
    (first, one), (second, other) = _tower_sides(config).items()
    if not one or not other or one.get('model') != other.get('model') or 'model' not in one:
        return
    revisions = one.get('revision'), other.get('revision')
    if revisions[0] != revisions[1]:
        raise ConfigError(
            f'{first}.revision={revisions[0]!r} and {second}.revision={revisions[1]!r} are two '
            f'versions of {one.model}, whose embeddings do not belong together: give both the same'
        )


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
        name (str | bytes | PathLike): a path; ``mmn_plugin::NAME.py``; or ``NAME.py``, or ``NAME``,
            of a config of this package (where no such file lies in the current folder).
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
        try:
            name = str(find_config(name))
        except FileNotFoundError as error:
            raise MissingFileError(
                f'there is no config {name} (current folder: {Path.cwd()}), and {error}'
            ) from None
    try:
        config = Config.fromfile(name)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(
            f'{name} inherits (_base_) from {error.filename}, which does not exist'
        ) from None
    except ImportError as error:  # MMEngine's text lists the whole search path
        reason = ' '.join(str(error).partition(', the current sys.path')[0].split())
        raise ConfigError(
            f'{name} cannot be run: {reason}; the folder of what it imports must be in PYTHONPATH'
        ) from error
    except Exception as error:  # a config is a program
        raise ConfigError(f'{name} cannot be run: {type(error).__name__}: {error}') from error
    if options:
        for text in idle_options(config, options):
            warn(text)
        try:
            config.merge_from_dict(of_both_sides(config, options))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f'--cfg-options of {name}: {error}') from error
    require_counts(config)
    require_one_revision(config)
    return config


def needs_weights(config: Config) -> bool:
    """Whether a config's model is of use only with a checkpoint (see `BaseLocalizer`)."""
    kind = MODELS.get((config.get('model') or {}).get('type') or '')
    return getattr(kind, 'needs_weights', True)  # a class of another package has no such word


# How Python says that a call does not take what it was given.
_ARGUMENTS = re.compile(
    r'[\w.]+\(\) (got an unexpected keyword argument|missing \d+ required|takes no arguments)'
)


@contextmanager
def config_errors(config: Config) -> Iterator[None]:
    """Turn what MMEngine, PyTorch and constructors raise over settings into `ConfigError`.

    For the building of what a config describes. Known are a setting that is absent, one that its
    class does not take or needs, a type that nobody registered, a value that is refused or of
    another type than declared, and a package that cannot be imported. Any other error is a bug and
    passes as it is.

    Args:
        config (Config): What things are built from; the message names its file.
    """
    where = config.filename or 'the config'
    try:
        require_component_types(config)
        yield
    except UserError:
        raise
    except AttributeError as error:
        if not isinstance(error.obj, ConfigDict):
            raise
        found = (  # MMEngine hands on copies
            path
            for path, part in nested(config._cfg_dict)
            if isinstance(part, dict) and part == error.obj
        )
        name = '.'.join(map(str, (*next(found, ('…',)), error.name)))
        raise ConfigError(f'{where} lacks the setting `{name}`') from error
    except (ImportError, KeyError, TypeError, ValueError, AssertionError) as error:
        text = str(error.args[0]).removesuffix('\nNone') if error.args else ''  # MMEngine's
        if ' ' not in text or (isinstance(error, TypeError) and not _ARGUMENTS.match(text)):
            raise  # a key, or a fault of code
        raise ConfigError(f'{where}: {text}') from error


def build_dataset(config: Config, split: str):
    """The dataset of a split, ``train``, ``val`` or ``test``.

    Raises:
        ConfigError: If the config has none, or it cannot be built as the config says.
    """
    loader = config.get(f'{split}_dataloader')
    if not loader:
        raise ConfigError(f'{config.filename or "the config"} has no {split}_dataloader')
    with config_errors(config):
        return DATASETS.build(loader.dataset)


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
    raise MissingFileError(f'there is no checkpoint {path} (.pth files in {folder}: {beside})')


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
        raise InputError(f'the device {name!r} cannot be used here: {reason}') from None
    return name


def require_checkpoint_content(checkpoint, path: str | None) -> None:
    """Make sure that a loaded file has the form of a checkpoint.

    Args:
        checkpoint: What was loaded.
        path (str | None): Its file, for the message.

    Raises:
        ValueError: If it is no dict of weights, neither under ``state_dict`` nor at the top, or
            its ``meta`` is no dict.
    """
    where = path or 'the checkpoint'
    if not isinstance(checkpoint, dict):
        raise InputError(
            f'{where} holds a {type(checkpoint).__name__} and is no checkpoint: '
            "expected a dict with the weights under 'state_dict'"
        )
    weights = checkpoint.get('state_dict', checkpoint)
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise InputError(
            f'{where} is no checkpoint: expected weights by name, but its state_dict '
            f'is a {type(weights).__name__}'
        )
    meta = checkpoint.get('meta', {})
    if not isinstance(meta, dict):
        raise InputError(
            f"{where} is a damaged checkpoint: its 'meta' is {meta!r:.40}, no dict. "
            "If you trust its weights, re-save its 'state_dict' alone"
        )


AMP = ('bf16', 'fp16')


def amp_dtype(amp: str, device: str | None = None) -> str:
    """What a value of ``--amp`` means on a device.

    Args:
        amp (str): ``'auto'``, ``'bf16'`` or ``'fp16'``.
        device (str, optional): Such as ``'cuda'``. Defaults to None: what MMEngine would use.

    Returns:
        str: ``'bfloat16'`` or ``'float16'``.

    Raises:
        ValueError: If there is no such precision, or not on this device.
    """
    on_cpu = (device or get_device()) == 'cpu'
    if amp not in ('auto', *AMP):
        raise InputError(f'mixed precision is bf16 or fp16, not {amp!r}')
    if amp == 'fp16' and on_cpu:
        raise InputError('fp16 needs a GPU; on the CPU mixed precision is bf16')
    return 'bfloat16' if amp == 'bf16' or (amp == 'auto' and on_cpu) else 'float16'


def set_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 in this process, in matrix products and in cuDNN.

    PyTorch 2.9 has new names for it, and raises where old and new disagree; so both are set.
    """
    backends = torch.backends
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = allowed
    if hasattr(backends.cudnn, 'conv'):
        for part in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):
            part.fp32_precision = 'tf32' if allowed else 'ieee'


def apply_tf32(config: Config) -> None:
    """Do in this process what ``env_cfg.allow_tf32`` of a config says; False where it is absent.

    PyTorch's own default is TF32 in convolutions and float32 in matrix products.

    Raises:
        ValueError: If it is neither True nor False.
    """
    allowed = (config.get('env_cfg') or {}).get('allow_tf32', False)
    if not isinstance(allowed, bool):
        raise InputError(f'env_cfg.allow_tf32={allowed!r}; give True or False')
    set_tf32(allowed)
