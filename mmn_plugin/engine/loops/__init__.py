"""Loops."""

from .amp_test_loop import AmpTestLoop
from .amp_val_loop import AmpValLoop
from .resumable_train_loop import ResumableTrainLoop

__all__ = ['AmpTestLoop', 'AmpValLoop', 'ResumableTrainLoop']
