"""What loops in a precision of one's choice share."""

from ..runner.amp import amp_dtype
from .amp_autocast import autocast_dtype


class AmpLoop:
    """Beside MMEngine's loops, whose ``fp16=True`` leaves the precision open.

    Args:
        *args: Those of the loop.
        amp (str): ``'bf16'``, ``'fp16'`` (not on the CPU), or ``'auto'``: float16 on GPUs,
            bfloat16 on the CPU. Defaults to ``'auto'``.
        **kwargs: Those of the loop, without ``fp16``.

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
