"""Validation loop in a precision of one's choice."""

from mmaction.registry import LOOPS
from mmengine.runner import ValLoop

from .amp_loop import AmpLoop


@LOOPS.register_module()
class AmpValLoop(AmpLoop, ValLoop):
    """MMEngine's ``ValLoop`` under autocast, with the arguments of :class:`AmpLoop`."""
