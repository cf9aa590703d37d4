"""From a config to an extractor."""

from inspect import signature
from pathlib import Path

from mmengine.config import Config

from mmn_plugin.datasets.features import FeatureExtractor
from mmn_plugin.engine.runner import apply_tf32, load_config, require_device
from mmn_plugin.paths import config_root

from .extractor_registry import EXTRACTORS, TUBE_EXTRACTORS

FOLDER = 'extractors'


def extractor_config(
    name: str,
    options: dict | None = None,
    checkpoint: str | None = None,
    fps: float | None = None,
    stride: int | None = None,
    amp: str | None = None,
) -> dict:
    """Read the ``extractor`` of a config, and apply its ``env_cfg.allow_tf32`` to this process.

    Args:
        name (str): Path of a config, or the name of one of mmn_plugin; ``extractors/`` and ``.py``
            may be left out.
        options (dict, optional): Merged over the config. Defaults to None.
        checkpoint (str, optional): Weights in place of the config's. Defaults to None.
        fps (float, optional): Likewise.
        stride (int, optional): Likewise.
        amp (str, optional): Likewise, mixed precision: ``'bf16'``, ``'fp16'``, or ``'auto'``, fp16
            on accelerators and bf16 on the CPU.

    Returns:
        dict: What `EXTRACTORS` builds.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it has no ``extractor``, or the extractor has no weights, or no network whose
            precision could be chosen.
    """
    config = load_config(_full_name(name), options)
    apply_tf32(config)
    settings = config.get('extractor')
    if not settings or not settings.get('type'):
        raise ValueError(f'{name} has no `extractor` with a `type`; configs/extractors has some')
    settings = Config(dict(extractor=settings)).to_dict()['extractor']
    if checkpoint is not None:
        weights = next((key for key in ('checkpoint', 'model') if key in settings), None)
        if weights is None:
            raise ValueError(f'--checkpoint {checkpoint}: {settings["type"]} has no weights')
        settings[weights] = checkpoint
    kind = EXTRACTORS.get(settings['type'])
    if amp is not None and kind is not None and 'amp' not in signature(kind).parameters:
        raise ValueError(
            f'--amp: {settings["type"]} has no network that could run in mixed precision'
        )
    settings.update(
        {
            key: value
            for key, value in dict(fps=fps, stride=stride, amp=amp).items()
            if value is not None
        }
    )
    return settings


def build_extractor(settings: dict, device: str | None = None) -> FeatureExtractor:
    """Build an extractor on a device.

    Raises:
        ValueError: If the settings name no extractor or it refuses them, or the device cannot be
            used.
    """
    kind = EXTRACTORS.get(settings['type'])
    if TUBE_EXTRACTORS.get(settings['type']) is not None:
        raise ValueError(
            f'{settings["type"]} describes tubes, not clips: tools/ground_tubes.py '
            'and tools/data/make_shapes_tubes.py use it'
        )
    if kind is None:
        raise ValueError(
            f'there is no extractor {settings["type"]!r}; there are '
            f'{", ".join(sorted(EXTRACTORS.module_dict))}'
        )
    settings = dict(settings)
    if device is not None and 'device' in signature(kind).parameters:
        settings['device'] = require_device(device)
    try:
        return EXTRACTORS.build(settings)
    except TypeError as error:  # a misspelt argument
        raise ValueError(f'extractor {settings["type"]}: {error}') from None


def _full_name(name: str) -> str:
    if '::' in name or Path(name).is_file():
        return name
    name = name if name.endswith('.py') else f'{name}.py'
    for path in (config_root() / name, config_root() / FOLDER / name):
        if path.is_file():
            return str(path)
    return name
