"""When each stage of the self-contrast begins."""

from collections.abc import Sequence

from mmaction.registry import HOOKS
from mmengine.hooks import Hook

from ..bare_model import bare_model


@HOOKS.register_module()
class ContrastStageHook(Hook):
    """Begin the stages from coarse to fine, once scores mean something.

    What is active follows from the epoch alone, so a resumed run is in the right stage.

    Args:
        from_epochs (Sequence[int]): First epoch, counted from 1, of each stage, never falling.

    Raises:
        ValueError: If the epochs fall or one is below 1.
    """

    def __init__(self, from_epochs: Sequence[int]):
        if list(from_epochs) != sorted(from_epochs) or min(from_epochs, default=1) < 1:
            raise ValueError(
                f'ContrastStageHook.from_epochs={list(from_epochs)}: epochs count '
                'from 1, and no stage begins before the one it refines'
            )
        self.from_epochs = tuple(from_epochs)

    def before_train(self, runner) -> None:
        """Check that there is an epoch for every stage.

        Raises:
            ValueError: If there is not.
        """
        windows = bare_model(runner).head.windows
        if len(windows) != len(self.from_epochs):
            raise ValueError(
                f'ContrastStageHook.from_epochs={list(self.from_epochs)} has '
                f'{len(self.from_epochs)} entries, but model.head.windows='
                f'{list(windows)} has {len(windows)}: give an epoch for every stage'
            )

    def before_train_epoch(self, runner) -> None:
        """Set how many stages train in the epoch that begins."""
        bare_model(runner).head.active_stages = self.active_stages(runner.epoch + 1)

    def active_stages(self, epoch: int) -> int:
        """Stages that have begun in an epoch counted from 1."""
        return sum(epoch >= first for first in self.from_epochs)
