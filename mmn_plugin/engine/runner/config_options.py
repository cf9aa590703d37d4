"""Options of the command line that change nothing in a config."""

import difflib
import inspect

from mmengine.config import Config
from mmengine.runner import Runner

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
    'long_video',
    'tracker',
    *inspect.signature(Runner.__init__).parameters,
} - {'self', 'cfg'}
# Parts without a type of their own that are handed to a call, which refuses what it does not know.
_HANDED_ON = (
    'train_dataloader',
    'val_dataloader',
    'test_dataloader',
    'train_cfg',
    'val_cfg',
    'test_cfg',
    'optim_wrapper',
    'randomness',
    'log_processor',
    'long_video',
    'env_cfg.mp_cfg',
    'env_cfg.dist_cfg',
)
# Parts whose keys are the user's own.
_FREE = ('optim_wrapper.paramwise_cfg.custom_keys', 'metainfo')
# Keys of parts that MMEngine reads by name, and so ignores any other.
_KNOWN = {
    'env_cfg': ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'),
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
}


def idle_options(config: Config, options: dict) -> list[str]:
    """Say which options of ``--cfg-options`` leave a run as it is, most often by a misspelt name.

    A part that is built from its ``type`` refuses what it does not know. Elsewhere an unknown key
    is not noticed, and neither is one that the config has, but used up when the file was read.

    Args:
        config (Config): Before the options are merged.
        options (dict): Values by dotted keys.

    Returns:
        list[str]: One sentence per option, with the nearest name that there is.
    """
    return [text for name in options if (text := _idle(config._cfg_dict, name, options))]


def _idle(config: dict, name: str, options: dict) -> str | None:
    keys = name.split('.')
    part, depth = config, 0
    while depth < len(keys) and (inner := _entry(part, keys[depth])) is not None:
        part, depth = inner[0], depth + 1
    if depth and keys[0] not in _READ:
        return _told(
            name,
            f'`{keys[0]}` is a variable, which the config used when it was read; to '
            'set it now changes nothing',
            _places(config, keys[0]),
        )
    if depth == len(keys) or not isinstance(part, dict) or _takes(keys, depth, part, options):
        return None
    path, key = '.'.join(keys[:depth]), keys[depth]
    known = {*part, *_known(path)} | (set() if depth else _READ)
    if key in known:
        return None
    nearest = [f'{path}.{near}'.lstrip('.') for near in difflib.get_close_matches(key, known, n=1)]
    place = f'`{path}`' if path else 'the config'
    reason = f'{place} has no setting `{key}`, and neither MMEngine nor mmn_plugin reads it'
    return _told(name, reason, nearest if depth else _places(config, key) or nearest)


def _entry(part, key: str) -> tuple | None:
    """The value under a key, in a tuple, as options walk through dicts and lists."""
    if isinstance(part, dict):
        return (part[key],) if key in part else None
    if isinstance(part, list | tuple) and key.isdecimal() and int(key) < len(part):
        return (part[int(key)],)
    return None


def _takes(keys: list[str], depth: int, part: dict, options: dict) -> bool:
    """Whether a new key of a part is its user's own choice, or is refused if it is wrong."""
    path, inside = '.'.join(keys[:depth]), '.'.join(keys[: depth + 1])
    made = options.get(inside)
    return (
        'type' in part
        or f'{path}.type' in options
        or f'{inside}.type' in options
        or (isinstance(made, dict) and 'type' in made)
        or path in _HANDED_ON
        or path.endswith(_FREE)
    )


def _known(path: str) -> tuple[str, ...]:
    return _KNOWN.get(path) or _KNOWN.get(f'{path.rpartition(".")[0]}.*', ())


def _places(part, name: str, path: str = '') -> list[str]:
    """Settings of this name in what is read of a config."""
    items = part.items() if isinstance(part, dict) else enumerate(part)
    found = []
    for key, value in items:
        if not path and key not in _READ:
            continue
        place = f'{path}.{key}'.lstrip('.')
        found += [place] if path and key == name else []
        found += _places(value, name, place) if isinstance(value, dict | list | tuple) else []
    return found


def _told(name: str, reason: str, instead: list[str]) -> str:
    hint = f'; did you mean {" or ".join(f"`{path}`" for path in instead[:4])}?' if instead else ''
    return f'--cfg-options {name}: {reason}{hint}'
