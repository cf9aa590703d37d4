"""How weights begin."""

import torch
from torch import nn

from mmn_plugin.errors import InputError


def begin_as_identity(projection: nn.Linear | nn.Conv1d, name: str) -> None:
    """Let a linear map between two spaces of one size begin as the identity.

    Raises:
        ValueError: If their sizes differ.
    """
    sizes = projection.weight.shape[1], projection.weight.shape[0]
    if sizes[0] != sizes[1]:
        raise InputError(
            f'{name}={sizes[0]} and embed_channels={sizes[1]}: identity=True needs one size'
        )
    with torch.no_grad():
        projection.weight.copy_(torch.eye(sizes[0]).view_as(projection.weight))
        projection.bias.zero_()
