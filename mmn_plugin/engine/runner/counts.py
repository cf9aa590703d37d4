"""Sizes and counts of a config."""

from mmengine.config import Config

# Numbers, and the least that each may be; PyTorch and MMEngine refuse less without naming them, or
# train nothing.
_COUNTS = {
    'train_dataloader.batch_size': 1,
    'val_dataloader.batch_size': 1,
    'test_dataloader.batch_size': 1,
    'train_dataloader.num_workers': 0,
    'val_dataloader.num_workers': 0,
    'test_dataloader.num_workers': 0,
    'train_cfg.max_epochs': 1,
    'train_cfg.val_interval': 1,
    'optim_wrapper.accumulative_counts': 1,
    'auto_scale_lr.base_batch_size': 1,
}


def require_counts(config: Config) -> None:
    """Make sure that sizes and counts of a config are whole numbers, and not too small.

    Raises:
        ValueError: Naming the first setting that is not.
    """
    for name, least in _COUNTS.items():
        part, key = name.split('.')
        settings = config.get(part)
        value = settings.get(key) if isinstance(settings, dict) else None
        if value is not None and (type(value) is not int or value < least):
            raise ValueError(
                f'{name}={value!r} of the config: give a whole number of {least} or more'
            )
