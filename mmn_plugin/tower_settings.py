"""Settings of a tower in a config: of what embeds videos, and of what embeds sentences."""

import copy
import os
from pathlib import Path

from mmengine.config import Config

from mmn_plugin.errors import ConfigError, InputError


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
    parts = [config.get('extractor'), (config.get('model') or {}).get('tower')]
    parts = [part for part in parts if part and 'model' in part]
    for part in parts:
        part.root = root
    if not parts:
        raise InputError(
            f'the model root {root} is of no use: neither `extractor` nor `model.tower` of '
            f'{config.filename or "the config"} is a model of Hugging Face'
        )
    return config
