"""Memory that is used again and again."""

import torch
from torch import Tensor


class Workspace:
    """Buffers by name, each as large as was ever asked for.

    Fresh memory of this size costs a page fault every 4 kB, which on the CPU takes as long as
    what is computed in it. Contents are undefined, and valid until the name is taken again.
    """

    def __init__(self):
        self._buffers: dict[tuple, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A contiguous tensor with the dtype and device of another."""
        key = name, like.dtype, like.device
        size = torch.Size(shape).numel()
        if key not in self._buffers or self._buffers[key].numel() < size:
            self._buffers.pop(key, None)
            with torch.inference_mode(False):  # or a training could not write to it
                self._buffers[key] = like.new_empty(size)
        return self._buffers[key][:size].view(shape)
