"""Stands in for tensors that a checkpoint's ``map_location`` has put on a GPU."""

from unittest import mock

import torch
from mmengine.runner import runner as runner_module
from mmengine.utils import apply_to


class OnDevice(torch.Tensor):
    """Refuses what a tensor on a GPU refuses; a copy on another device is an ordinary tensor."""

    def numpy(self, **_):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to "
            'copy the tensor to host memory first.'
        )

    def __array__(self, *_, **__):
        return self.numpy()

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def to(self, *args, **kwargs):
        return self.cpu().to(*args, **kwargs)


def on_device(content):
    """The same, with all its tensors on the device that is not there."""
    return apply_to(content, torch.is_tensor, lambda tensor: tensor.as_subclass(OnDevice))


def checkpoints_on_device():
    """Within it a Runner loads checkpoints to that device."""
    load = runner_module._load_checkpoint
    return mock.patch.object(
        runner_module, '_load_checkpoint', lambda *args, **kwargs: on_device(load(*args, **kwargs))
    )
