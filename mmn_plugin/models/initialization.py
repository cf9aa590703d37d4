"""How weights begin."""

import torch
from torch import nn

from mmn_plugin.errors import InputError


def begin_as_identity(projection: nn.Linear | nn.Conv1d, setting: str, instead: str) -> None:
    """Let a linear map into a joint space begin as the identity, its bias at 0; in place.

    Args:
        projection (nn.Linear | nn.Conv1d): From a space of the same size.
        setting (str): What asks for it, with its value, for the message.
        instead (str): What to set so that nothing does, likewise.

    Raises:
        ValueError: If the sizes differ.
    """
    sizes = projection.weight.shape[1], projection.weight.shape[0]
    if sizes[0] != sizes[1]:
        raise InputError(
            f'{setting}: a space of {sizes[0]} numbers cannot begin as one of {sizes[1]}: set '
            f'embed_channels of model.neck and of model.text_encoder to {sizes[0]}, or {instead}'
        )
    with torch.no_grad():
        projection.weight.copy_(torch.eye(sizes[0]).view_as(projection.weight))
        projection.bias.zero_()
