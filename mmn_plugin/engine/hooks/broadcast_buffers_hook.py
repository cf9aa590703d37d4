"""One set of BatchNorm statistics for all ranks."""

from mmaction.registry import HOOKS
from mmengine.dist import broadcast, get_world_size
from mmengine.hooks import Hook


@HOOKS.register_module()
class BroadcastBuffersHook(Hook):
    """Give all ranks rank 0's buffers before every validation and save.

    Training statistics of BatchNorm stay per rank, as published, and rank 0's are what a
    checkpoint holds; with this a validation in training equals a test of that checkpoint.
    """

    priority = 'VERY_HIGH'  # before the checkpoint is written at the end of the same epoch

    def after_train_epoch(self, runner) -> None:
        """Before the epoch's checkpoint."""
        self._broadcast(runner.model)

    def before_val_epoch(self, runner) -> None:
        """Before a validation, wherever in an epoch it stands."""
        self._broadcast(runner.model)

    @staticmethod
    def _broadcast(model) -> None:
        if get_world_size() == 1:
            return
        for buffer in model.buffers():
            broadcast(buffer, src=0)
