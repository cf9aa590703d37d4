"""What of a checkpoint is not weights, as data that PyTorch alone can read."""

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_PLAIN = (str, bytes, int, float, bool, type(None))
_HISTORY = {'log_history', 'count_history', 'max_length'}  # arguments of HistoryBuffer


def plain(value, owner: str):
    """A copy on the CPU of what ``weights_only`` loading accepts.

    Args:
        value: Tensors, arrays, numbers, strings, and lists, tuples and dicts of them.
        owner (str): Whose it is, for the message.

    Raises:
        TypeError: If the value is of another kind; the message names its owner.
    """
    if torch.is_tensor(value):
        return value.detach().cpu().clone()
    if isinstance(value, np.ndarray | np.generic):
        return torch.from_numpy(np.asarray(value).copy()) if value.ndim else value.item()
    if isinstance(value, dict):
        return {plain(k, owner): plain(v, owner) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(v, owner) for v in value)
    if type(value) in _PLAIN:
        return value
    raise TypeError(
        f'{owner} holds a {type(value).__name__}; a checkpoint holds tensors, numbers, '
        'strings, lists, tuples and dicts'
    )


def make_plain(checkpoint: dict) -> None:
    """Replace what MMEngine puts beside the weights by plain data.

    Its log histories become dicts of their arguments; arrays become tensors. What a hook of
    another origin has added, and has no plain form, stays.

    Args:
        checkpoint (dict): About to be saved.
    """
    hub = checkpoint.get('message_hub', {})
    if 'log_scalars' in hub:
        hub['log_scalars'] = {
            name: dict(
                log_history=torch.tensor(history.data[0]),
                count_history=torch.tensor(history.data[1]),
                max_length=history.max_length,
            )
            if isinstance(history, HistoryBuffer)
            else history
            for name, history in hub['log_scalars'].items()
        }
    for part in (hub, checkpoint.get('meta', {})):
        for name, value in part.items():
            try:
                part[name] = plain(value, name)
            except TypeError:
                continue


def restore_histories(checkpoint: dict) -> None:
    """Give MMEngine its log histories back; they may also be its own still.

    Args:
        checkpoint (dict): Loaded.
    """
    scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
    for name, value in scalars.items():
        if isinstance(value, dict) and value.keys() == _HISTORY:
            scalars[name] = HistoryBuffer(
                **{
                    part: given.cpu().numpy() if torch.is_tensor(given) else given
                    for part, given in value.items()
                }
            )
