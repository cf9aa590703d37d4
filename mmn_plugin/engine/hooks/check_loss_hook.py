"""Stop when the loss is no number."""
import torch
from mmaction.registry import HOOKS
from mmengine.hooks import Hook


@HOOKS.register_module()
class CheckLossHook(Hook):
    """End training at the first loss that is NaN or infinite.

    The weights are spoilt by then, but the checkpoints on disk are not; the message names the
    videos of the batch, which a damaged feature is usually found in.
    """

    def after_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Look at every loss of the iteration.

        Raises:
            FloatingPointError: If one is NaN or infinite.
        """
        bad = {name: float(value) for name, value in (outputs or {}).items()
               if torch.is_tensor(value) and not torch.isfinite(value).all()}
        if not bad:
            return
        videos = ', '.join(sample.video_id for sample in data_batch['data_samples'])
        listed = ', '.join(f'{name}={value}' for name, value in bad.items())
        raise FloatingPointError(
            f'{listed} at epoch {runner.epoch + 1}, iteration {batch_idx + 1}, in the batch of '
            f'videos {videos}. Look at their features with tools/data/check_dataset.py; if they '
            'are sound lower the learning rate, and resume from the last checkpoint')
