"""Where the time of a step goes."""

import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from functools import wraps

import torch
from torch import nn


class PhaseTimer:
    """Seconds per phase of a step, by wrapping methods and by hooks on modules.

    Waits for the device at the ends of every phase, which costs time: for steps of their own, not
    for those that are timed as a whole. Phases may lie in one another; each has all of its time.

    Args:
        device (str): Where the work is done.

    Attributes:
        seconds (dict[str, float]): Sum per phase.
    """

    def __init__(self, device: str = 'cpu'):
        self.device = torch.device(device)
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack = ExitStack()
        self._began: dict[str, float] = {}

    def __enter__(self) -> 'PhaseTimer':
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    @contextmanager
    def phase(self, name: str):
        """Count what is done within."""
        self._begin(name)
        yield
        self._end(name)

    def watch_method(self, owner, method: str, name: str) -> None:
        """Count every call of an object's method."""
        original = getattr(owner, method)

        @wraps(original)
        def timed(*args, **kwargs):
            with self.phase(name):
                return original(*args, **kwargs)

        object.__setattr__(owner, method, timed)
        self._stack.callback(object.__delattr__, owner, method)

    def watch_module(self, module: nn.Module, name: str, backward: str | None = None) -> None:
        """Count a module's forward, and its backward under a name of its own."""
        handles = [
            module.register_forward_pre_hook(lambda *_: self._begin(name)),
            module.register_forward_hook(lambda *_: self._end(name)),
        ]
        if backward:
            handles += [
                module.register_full_backward_pre_hook(lambda *_: self._begin(backward)),
                module.register_full_backward_hook(lambda *_: self._end(backward)),
            ]
        for handle in handles:
            self._stack.callback(handle.remove)

    def _begin(self, name: str) -> None:
        self._began[name] = self._now()

    def _end(self, name: str) -> None:
        self.seconds[name] += self._now() - self._began.pop(name)

    def _now(self) -> float:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
