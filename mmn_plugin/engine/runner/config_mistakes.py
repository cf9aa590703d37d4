"""Mistakes in a config that MMEngine reports without saying where they are."""

import re
from pathlib import Path
from types import TracebackType

import mmengine
from mmengine.config import Config, ConfigDict

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
