"""A hook that shows what each rank has in memory, which a checkpoint (rank 0's) does not."""

from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module(force=True)
class RankDumpHook(Hook):
    """Save every rank's weights after each epoch."""

    priority = 'LOWEST'

    def after_train_epoch(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        path = Path(runner.work_dir) / f'rank{get_rank()}_epoch{runner.epoch + 1}.pth'
        torch.save(model.state_dict(), path)
