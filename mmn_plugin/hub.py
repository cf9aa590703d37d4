"""Models of Hugging Face: where their files are, and one error where they are not."""

import copy
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from mmn_plugin.errors import DownloadError, InputError

ROOT_VARIABLE = 'MMN_MODEL_ROOT'
_QUIET_LOCK = threading.Lock()


def find_model(name: str, root: str | None = None) -> str:
    """Local folder of a model, or its name where Hugging Face has to find it.

    The first of these that exists: the folder ``name``; ORG/NAME or NAME below ``root``, or below
    the environment variable ``MMN_MODEL_ROOT``; ``root`` itself where it is a model's own folder
    (it has a ``config.json``), which is logged. Otherwise the name is returned, for which the
    Hugging Face cache and its environment variables apply.

    Args:
        name (str): Folder, or name on the Hub.
        root (str, optional): Folder with models. Defaults to None.

    Raises:
        ValueError: If ``root`` or the variable names no folder.
    """
    if Path(name).is_dir():
        return str(name)
    for folder, source in (
        (root, 'the model root'),
        (os.environ.get(ROOT_VARIABLE), ROOT_VARIABLE),
    ):
        if not folder:
            continue
        if not Path(folder).is_dir():
            raise InputError(f'{source} {folder} is no folder; it must hold {name}')
        places = [Path(folder, name), Path(folder, Path(name).name)]
        # the variable holds for every model of a run, so that it cannot be the folder of one
        places += [Path(folder)] if folder == root else []
        for place in places:
            if (place / 'config.json').is_file():
                if place == Path(folder):
                    _say_stand_in(str(place), str(name))
                return str(place)
    return str(name)


def with_model_root(config: Config, root: str | os.PathLike | None) -> Config:
    """A config whose extractor and tower of Hugging Face are looked for in a folder first.

    Args:
        config (Config): Stays as it is.
        root (str | PathLike | None): As of `find_model`. None: the config is returned.

    Raises:
        ValueError: If there is no such folder, or the config has no model of Hugging Face.
    """
    if root is None:
        return config
    root = os.fsdecode(root)
    if not Path(root).is_dir():
        raise InputError(
            f'the model root {root} is no folder: give that of a model, or one with ORG/NAME in it'
        )
    config = copy.deepcopy(config)
    sides = config.get('extractor'), (config.get('model') or {}).get('tower')
    parts = [side for side in sides if side and 'model' in side]
    for part in parts:
        part.root = root
    if not parts:
        raise InputError(
            f'the model root {root} is of no use: neither `extractor` nor `model.tower` of '
            f'{config.filename or "the config"} is a model of Hugging Face'
        )
    return config


WEIGHTS = ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin')


def is_local(name: str, root: str | None = None, revision: str | None = None) -> bool:
    """Whether a model's weights are on this machine: in a folder, or in the Hugging Face cache.

    Args:
        name (str): Folder, or name on the Hub.
        root (str, optional): As of `find_model`. Defaults to None.
        revision (str, optional): Branch, tag or commit. Defaults to None: the main one.

    Raises:
        ValueError: As of `find_model`, and if the name is no name of a model.
    """
    from huggingface_hub import try_to_load_from_cache

    place = find_model(name, root)
    if Path(place).is_dir():
        return True
    found = (try_to_load_from_cache(place, file, revision=revision) for file in WEIGHTS)
    return any(isinstance(path, str) for path in found)


@cache
def _say_stand_in(folder: str, name: str) -> None:
    """Tell once that a folder serves whatever it holds; its own name may be any."""
    print_log(f'the model in {folder} stands for {name}', logger='current')


def published_name(name: str) -> str:
    """What a model is called on other machines: ORG/NAME as it is, of a folder the last name."""
    cached = re.search('models--([^/]+?)--([^/]+)', name)  # a folder of the Hugging Face cache
    if cached:
        return '/'.join(cached.groups())
    known = re.fullmatch(r'[\w-][\w.-]*/[\w-][\w.-]*', name)
    return name if known else Path(name).resolve().name


def from_hub(
    load: Callable, name: str, root: str | None = None, remedy: str = '', **options
) -> Any:
    """Call a ``from_pretrained`` of transformers on the model that `find_model` finds.

    Args:
        load (Callable): Takes the folder or the name, and ``options``.
        name (str): Folder, or name on the Hub.
        root (str, optional): As of `find_model`.
        remedy (str): What else can be done where the model is not found, for the message.
        **options: Of ``load``.

    Raises:
        OSError: If the files are neither here nor given by the Hub; it names the places.
        ValueError: If they are there and transformers cannot use them.
    """
    from safetensors import SafetensorError
    from transformers.utils import cached_file

    place = find_model(name, root)
    try:
        with quiet():
            if not Path(place).is_dir():  # loaders of several files wait for each in vain
                cached_file(place, 'config.json', revision=options.get('revision'))
            return load(place, **options)
    except InputError:
        raise
    except OSError as error:
        raise DownloadError(_not_found(name, place, root, remedy, error)) from error
    except (ImportError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = ' '.join(str(error).split())[:400]
        message = f'{place}: transformers cannot use this model: {reason}'
        if isinstance(error, SafetensorError):
            message += f'. Its weights are damaged: copy or download {name} again'
        raise InputError(message) from error


def _not_found(name: str, place: str, root: str | None, remedy: str, error: OSError) -> str:
    """Places that were looked at, and what to do."""
    reason = ' '.join(str(error).split())[:300]
    if Path(place).is_dir():
        return f'{place} is no complete model, copy or download all files of {name}: {reason}'
    variables = ('HF_HOME', 'HF_HUB_CACHE', 'HF_HUB_OFFLINE')
    told = [f'{key}={os.environ[key]}' for key in variables if os.environ.get(key)]
    searched = root or os.environ.get(ROOT_VARIABLE)
    return (
        f'there is no model {name!r}: it is no local folder, '
        f'{f"{searched} does not hold it" if searched else "no folder of models is given"}, and '
        f'the Hugging Face hub did not give it ({", ".join(told) or "no variable of it is set"}). '
        f'Check the name and the network. Without a network set {ROOT_VARIABLE} to a folder with '
        f'{name} in it (for a tower --model-root of `mmn`, or model_root= in Python, does too), or '
        f'HF_HOME to a cache that has it{f", {remedy}" if remedy else ""}; HF_HUB_OFFLINE=1 spares '
        'the wait'
    )


def load_weights(
    name: str,
    root: str | None = None,
    revision: str | None = None,
    needless: Callable[[str], bool] = lambda weight: False,
):
    """Load an `AutoModel` with its weights in float32; one that would be random in part is refused.

    Args:
        name (str): Folder, or name on the Hub.
        root (str, optional): As of `find_model`.
        revision (str, optional): Branch, tag or commit. Defaults to None: the main one.
        needless (Callable): Whether a weight by its name may be missing. Defaults to none.

    Raises:
        OSError: As of `from_hub`.
        ValueError: Likewise, and if weights are missing or of another shape.
    """
    from transformers import AutoModel

    options = dict(revision=revision, output_loading_info=True, dtype='float32')
    model, info = from_hub(AutoModel.from_pretrained, name, root, **options)
    missing = sorted(key for key in map(str, info['missing_keys']) if not needless(key))
    if missing:
        raise InputError(
            f'{find_model(name, root)} lacks weights of AutoModel, which would be random: '
            f'{", ".join(missing[:5])}'
        )
    return model


def read_model_json(
    name: str, file: str, root: str | None = None, revision: str | None = None
) -> dict | list | None:
    """Content of a JSON file of a model; None where the model has no such file.

    Raises:
        OSError: If there is no such model.
        ValueError: If the file is no JSON.
    """
    from transformers.utils import cached_file

    options = dict(revision=revision, _raise_exceptions_for_missing_entries=False)
    path = from_hub(cached_file, name, root, filename=file, **options)
    if path is None:
        return None
    try:
        return json.loads(Path(path).read_text(encoding='utf-8'))
    except ValueError as error:
        raise InputError(f'{path} is no JSON: {error}') from None


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what transformers has to say but errors, and its bars: there is one bar here.

    Both settings belong to the process, so that threads take turns.
    """
    from transformers.utils import logging

    with _QUIET_LOCK:
        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()
