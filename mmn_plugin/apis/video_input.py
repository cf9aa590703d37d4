"""What users hand over as videos, names, rates and durations, in one form."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from mmn_plugin.datasets.folder_feature_store import tensor_to_array


def as_videos(video) -> list | None:
    """Several videos as a list, None where it is one.

    Args:
        video: A list, a tuple, or an array of paths; or one of what `plain_video` takes.
    """
    if isinstance(video, np.ndarray) and video.ndim and video.dtype.kind in 'OSU':
        return video.ravel().tolist()
    return list(video) if isinstance(video, list | tuple) else None


def plain_video(video):
    """A video as its path (str or Path), or as an array; what is neither stays as it is.

    Args:
        video: Paths may be bytes, `os.PathLike` or an array of one; tensors of any device, layout
            and precision, with gradients or without.
    """
    if isinstance(video, np.ndarray) and not video.ndim:
        video = video.item()
    if isinstance(video, bytes) or (isinstance(video, os.PathLike) and not isinstance(video, Path)):
        return os.fsdecode(video)
    return tensor_to_array(video) if torch.is_tensor(video) else video


def one_each(value, count: int) -> list:
    """A value for each of several videos: the same, or those of a list, tuple, array or tensor."""
    if isinstance(value, np.ndarray | torch.Tensor):
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple) else [value] * count


def positive_number(value, message: str) -> float:
    """A rate or a duration as float.

    Args:
        value: A number of Python, NumPy or PyTorch, or text, such as ``'25'`` or
            ``'30000/1001'``.
        message (str): What to say of anything else.

    Raises:
        ValueError: If it is not one finite number above 0.
    """
    try:
        if isinstance(value, np.ndarray | np.generic | torch.Tensor):
            value = value.item()
        if isinstance(value, bytes):
            value = value.decode()
        number = float(Fraction(value) if isinstance(value, str) else value)
    except (TypeError, ValueError, ArithmeticError, RuntimeError):
        number = np.nan
    if isinstance(value, bool) or not 0 < number < np.inf:
        raise ValueError(message)
    return number
