"""Products whose gradients have the product's own precision."""

import torch
from torch import Tensor


def exact_product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right``, batched, outside autocast in backward as well.

    PyTorch computes the gradient of a product under the autocast that surrounds the call of
    ``backward``, though the product itself was taken where autocast was off.

    Args:
        left (Tensor): (B, m, k).
        right (Tensor): (B, k, n).

    Returns:
        Tensor: (B, m, n).
    """
    if torch.is_grad_enabled() and (left.requires_grad or right.requires_grad):
        return _ExactProduct.apply(left, right)
    with torch.autocast(left.device.type, enabled=False):
        return torch.bmm(left, right)


class _ExactProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, left, right):
        ctx.save_for_backward(left, right)
        with torch.autocast(left.device.type, enabled=False):
            return torch.bmm(left, right)

    @staticmethod
    def backward(ctx, gradient):
        left, right = ctx.saved_tensors
        of_left = of_right = None
        with torch.autocast(left.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                of_left = torch.bmm(gradient, right.transpose(1, 2))
            if ctx.needs_input_grad[1]:
                of_right = torch.bmm(left.transpose(1, 2), gradient)
        return of_left, of_right
