"""Validation loop in a precision of one's choice."""
from mmaction.registry import LOOPS
from mmengine.runner import ValLoop

from ..runner.amp import amp_dtype
from .amp_autocast import autocast_dtype


@LOOPS.register_module()
class AmpValLoop(ValLoop):
    """MMEngine's ``ValLoop`` under autocast, of which ``fp16=True`` leaves the precision open.

    Args:
        *args: Those of ``ValLoop``.
        amp (str): ``'bf16'``, ``'fp16'`` (not on the CPU), or ``'auto'``: float16 on GPUs,
            bfloat16 on the CPU. Defaults to ``'auto'``.
        **kwargs: Those of ``ValLoop``, without ``fp16``.

    Raises:
        ValueError: If the device has no such precision.
    """

    def __init__(self, *args, amp: str = 'auto', **kwargs):
        amp_dtype(amp)  # raises before anything is built
        super().__init__(*args, fp16=True, **kwargs)
        self.amp = amp

    def run_iter(self, idx, data_batch) -> None:
        """One batch."""
        with autocast_dtype(self.amp):
            super().run_iter(idx, data_batch)
