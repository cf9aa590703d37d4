"""Refuse a checkpoint of another architecture."""

import re

import torch
from mmaction.registry import HOOKS
from mmengine.hooks import Hook

from ..bare_model import bare_model
from .checkpoint_content import require_checkpoint_content

_SHOWN = 5


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Compare a checkpoint's weights with the model's before they are loaded.

    MMEngine loads what fits and logs the rest, so that testing a wrong checkpoint gives the figures
    of a partly random model. Here testing and resuming need every weight, in its shape. Starting
    a training from weights (``load_from``) may leave some out, but not all of them.

    Args:
        strict (bool): every weight must fit, also when the run is not resumed. Defaults to True.

    Raises:
        ValueError: after loading a checkpoint that does not fit, or a file that is none; it names
            keys and shapes.
    """

    priority = 'LOWEST'  # after the hooks that change the loaded state, such as an EMA's

    def __init__(self, strict: bool = True):
        self.strict = strict

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Check the weights that were read; MMEngine copies them into the model afterwards."""
        require_checkpoint_content(checkpoint, runner._load_from)
        model = bare_model(runner)
        given = checkpoint.get('state_dict', checkpoint)
        given = {re.sub('^module[.]', '', key): value for key, value in given.items()}
        problems, nothing_fits = _compare(model.state_dict(), given)
        if nothing_fits or (problems and (self.strict or runner._resume)):
            raise ValueError(
                f'{runner._load_from or "the checkpoint"} belongs to another architecture than '
                f'the config: {"; ".join(problems)}. Use the config that it was trained with'
            )


def _compare(own: dict, given: dict) -> tuple[list[str], bool]:
    """Name what differs between two state dicts, and say whether nothing at all fits."""
    shared = own.keys() & given.keys()
    # MMEngine too forgives a missing num_batches_tracked, which old checkpoints lack.
    missing = [key for key in own if key not in given and 'num_batches_tracked' not in key]
    unexpected = [key for key in given if key not in own]
    reshaped = [key for key in own if key in shared and _shape(own[key]) != _shape(given[key])]
    shapes = [f'{key} ({_shape(given[key])}, here {_shape(own[key])})' for key in reshaped]
    problems = [
        f'{len(keys)} {what}: {", ".join(keys[:_SHOWN])}{", ..." if len(keys) > _SHOWN else ""}'
        for what, keys in (
            ('missing', missing),
            ('unknown', unexpected),
            ('of another shape', shapes),
        )
        if keys
    ]
    return problems, len(reshaped) == len(shared)


def _shape(value) -> str:
    return 'x'.join(map(str, value.shape)) or 'scalar' if torch.is_tensor(value) else ''
