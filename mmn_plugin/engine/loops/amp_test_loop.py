"""Test loop in a precision of one's choice."""

from mmaction.registry import LOOPS
from mmengine.runner import TestLoop

from .amp_loop import AmpLoop


@LOOPS.register_module()
class AmpTestLoop(AmpLoop, TestLoop):
    """MMEngine's ``TestLoop`` under autocast, with the arguments of :class:`AmpLoop`."""
