"""Mixed precision on the CPU."""

from contextlib import contextmanager

import torch
from mmaction.registry import OPTIM_WRAPPERS
from mmengine.optim import OptimWrapper


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Run the forward pass under bfloat16 autocast on the CPU.

    MMEngine's ``AmpOptimWrapper`` refuses the CPU, for it always scales the loss. bfloat16 has
    float32's range, so nothing needs scaling; weights, gradients and optimiser stay float32.
    ``tools/train.py --amp`` picks this class where there is no accelerator.

    Args:
        **kwargs: those of :class:`mmengine.optim.OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model):
        """Autocast around MMEngine's own context (gradient accumulation)."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield
