"""The names of model-index.yml."""

import os
from pathlib import Path

import yaml
from mmengine.config import Config

from mmn_plugin.engine.runner import load_config
from mmn_plugin.paths import package_data_root


def named_models() -> dict[str, dict]:
    """Entries of this package's model index by name."""
    root = package_data_root()
    index = yaml.safe_load((root / 'model-index.yml').read_text(encoding='utf-8'))
    pages = [yaml.safe_load((root / path).read_text(encoding='utf-8')) for path in index['Import']]
    return {entry['Name']: entry for page in pages for entry in page['Models']}


def resolve_model(
    config: str | Path | Config | None, checkpoint: str | Path | None
) -> tuple[Config | None, str]:
    """Config and checkpoint from what a user gave.

    Args:
        config (str | bytes | PathLike | Config, optional): A name of the model index, the path or
            name of a config, or a config. None: the checkpoint's own.
        checkpoint (str | bytes | PathLike, optional): None: the weights of the entry in the model
            index.

    Returns:
        tuple[Config | None, str]: Both; the config None if it was.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If no checkpoint was given, and none is known.
    """
    entry = None
    if isinstance(config, bytes):
        config = os.fsdecode(config)
    if isinstance(config, str) and Path(config).suffix != '.py':
        entry = named_models().get(config.lower())
        if entry is None and not Path(config).exists():
            raise FileNotFoundError(
                f'there is no model {config!r}; give the path of a config, or '
                f'one of {", ".join(named_models())}'
            )
    if entry is not None:
        checkpoint = checkpoint or _weights(entry)
        if checkpoint is None:
            raise ValueError(
                f'no weights of {entry["Name"]!r} are published: give checkpoint=, '
                'one that was trained with its config'
            )
        config = str(package_data_root() / entry['Config'])
    if checkpoint is None:
        raise ValueError(
            'no checkpoint was given: give the file (.pth) or folder of a trained model'
        )
    if config is not None and not isinstance(config, Config):
        config = load_config(config)
    return config, os.fsdecode(checkpoint)


def _weights(entry: dict) -> str | None:
    weights = entry.get('Weights')
    return weights[0] if isinstance(weights, list) else weights
