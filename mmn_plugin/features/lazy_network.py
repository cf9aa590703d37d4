"""A network that is built at its first use, on a device that may change."""

import hashlib
import threading
from abc import ABC, abstractmethod

import torch
from mmengine.device import get_device
from torch import nn

from mmn_plugin.config import amp_dtype


class LazyNetwork(ABC):
    """Builds a network and reads its weights at the first use; several threads may use one.

    Args:
        device (str, optional): Defaults to None: the accelerator if there is one.
        amp (str, optional): Mixed precision, ``'bf16'`` or ``'fp16'`` (not on the CPU). Defaults to
            None: float32.

    Attributes:
        device (str): Where the network runs. When set, the network follows at its next use.
        amp (str | None): ``'bf16'``, ``'fp16'`` or None.

    Raises:
        ValueError: If the device has no such precision.
    """

    def __init__(self, device: str | None = None, amp: str | None = None) -> None:
        self._lock = threading.RLock()  # what is built at the first use takes it again
        self._model: nn.Module | None = None
        self._there: str | None = None  # the device that the network is on
        self._asked_amp = amp
        self.device = device or get_device()

    @property
    def device(self) -> str:
        """Where the network runs."""
        return self._device

    @device.setter
    def device(self, device: str | torch.device) -> None:
        self._device = str(device)
        self._device_type = torch.device(device).type
        self._on_gpu = self._device_type == 'cuda'
        amp = self._asked_amp
        self._dtype = getattr(torch, amp_dtype(amp, self._device_type)) if amp else None
        self.amp = {torch.bfloat16: 'bf16', torch.float16: 'fp16'}.get(self._dtype)

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != '_lock'}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    @abstractmethod
    def build_model(self) -> nn.Module:
        """The network with its weights, on the CPU."""

    @property
    def model(self) -> nn.Module:
        """The network in evaluation mode, on the device."""
        with self._lock:
            if self._model is None:
                self._model = self.build_model().eval().requires_grad_(False)
            if self._there != self._device:
                self._model.to(self._device)
                self._there = self._device
            return self._model


def digest(model: nn.Module) -> str:
    """Short digest of all weights and buffers, equal wherever the file came from."""
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return f'sha256:{total.hexdigest()[:16]}'
