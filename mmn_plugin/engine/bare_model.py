"""The model itself."""

from mmengine.model import is_model_wrapper
from torch import nn


def bare_model(runner) -> nn.Module:
    """The runner's model without what wraps it in a distributed run."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
