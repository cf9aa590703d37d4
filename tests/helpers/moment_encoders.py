"""Moment encoders to compare, what they are given, and how."""

import torch

from mmn_plugin.models.necks import MomentEncoder
from mmn_plugin.structures import MomentGrid

# num_clips, pooling_counts, kernel_size, num_layers of the three benchmarks' configs
SIZES = {
    'tacos': (128, [15, 8, 8, 8], 5, 8),
    'charades_sta': (16, [15], 5, 8),
    'activitynet': (64, [15, 8, 8], 9, 4),
}
CHANNELS = 8


def encoders(
    size,
    channels=CHANNELS,
    dtype=torch.float32,
    training=True,
    settings=(dict(conv_mode='dense'), dict(conv_mode='sparse')),
):
    """Two encoders of the same weights and statistics, and their grid."""
    num_clips, counts, kernel_size, num_layers = SIZES[size] if isinstance(size, str) else size
    grid = MomentGrid(num_clips, counts)
    torch.manual_seed(0)
    dense, other = (
        MomentEncoder(grid, channels, kernel_size, num_layers, **each).to(dtype)
        for each in settings
    )
    for norm in dense.bn:
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, 0, 0.1)
    other.load_state_dict(dense.state_dict())
    return dense.train(training), other.train(training), grid


def passes(encoder, moments, weights, autocast=False):
    """Result and gradients of one pass forward and backward."""
    moments = moments.clone().requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        result = encoder(moments)
    (result.to(weights.dtype) * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    return result.detach(), dict(moments=moments.grad, **gradients)


def relative(actual, expected):
    """Largest difference, of the largest value; as it is where all are 0."""
    largest = expected.abs().max()
    return ((actual - expected).abs().max() / largest.where(largest > 0, 1)).item()


def inputs(grid, batch_size=2, channels=CHANNELS, dtype=torch.float32):
    """Moments, and the gradient of their encoding."""
    generator = torch.Generator().manual_seed(1)
    shape = batch_size, channels, grid.num_moments
    return (
        torch.randn(shape, generator=generator).to(dtype),
        torch.randn(shape, generator=generator).to(dtype),
    )


def assert_same(dense, other, moments, weights):
    """Result, gradients and statistics of two encoders in float64, where no ReLU's gate differs.

    Without a bias's gradient in training: BatchNorm takes the bias away.
    """
    (actual, gradients), (expected, of_dense) = (
        passes(encoder, moments, weights) for encoder in (other, dense)
    )
    assert relative(actual, expected) < 1e-11
    for key, gradient in of_dense.items():
        if dense.training and key.startswith('convs') and key.endswith('bias'):
            assert gradients[key].abs().max() < 1e-11, key
        else:
            assert relative(gradients[key], gradient) < 1e-11, key
    for (key, value), buffer in zip(dense.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(buffer, value, rtol=1e-11, atol=1e-11, msg=key)


def kept_bytes(encoder, moments):
    """Memory of what one pass forward keeps for backward, without the weights."""
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder(moments)
    weights = {parameter.data_ptr() for parameter in encoder.parameters()}
    return sum(size for storage, size in storages.items() if storage not in weights)
