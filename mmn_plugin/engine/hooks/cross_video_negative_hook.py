"""Where the contrastive losses' negatives come from, and how much they weigh when."""
from mmaction.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper


@HOOKS.register_module()
class CrossVideoNegativeHook(Hook):
    """Schedule of the losses whose negatives come from other videos.

    Negatives come from the videos of the batch on this device, as published. Through epoch
    ``full_through_epoch`` the contrastive losses have their full weight; after it they are
    multiplied by ``late_factor`` and the IoU loss decides (MMN's late stage).

    Args:
        full_through_epoch (int): Last epoch, counted from 1, of the full weight (``only_iou`` of
            the published settings).
        late_factor (float): Factor afterwards. Defaults to 0.01, as published.
    """

    def __init__(self, full_through_epoch: int, late_factor: float = 0.01):
        self.full_through_epoch = full_through_epoch
        self.late_factor = late_factor

    def before_train_epoch(self, runner) -> None:
        """Set the factor for the epoch that begins."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.head.contrastive_factor = self.factor(runner.epoch + 1)

    def factor(self, epoch: int) -> float:
        """Factor on the contrastive losses in an epoch counted from 1."""
        return 1. if epoch <= self.full_through_epoch else self.late_factor
