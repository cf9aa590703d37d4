"""From what a layer gives to one vector per clip."""

import torch
from torch import Tensor


def pool_features(output, num_clips: int) -> Tensor:
    """Average a layer's output over everything but clips and channels.

    Args:
        output (Tensor | list | tuple): Vectors (B', C), tokens (B', L, C), maps (B', C, H, W) or
            (B', C, T, H, W); or several of these, which are joined along C. B' is a multiple
            of the number of clips where each frame of a clip has a row of its own.
        num_clips (int): B.

    Returns:
        Tensor: (B, C).
    """
    if isinstance(output, list | tuple):
        return torch.cat(
            [pool_features(part, num_clips) for part in output if part is not None], dim=1
        )
    if output.ndim == 3:
        output = output.mean(1)
    elif output.ndim > 3:
        output = output.flatten(2).mean(2)
    return output.unflatten(0, (num_clips, -1)).mean(1)
