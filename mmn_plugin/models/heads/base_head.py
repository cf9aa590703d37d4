"""What the heads share."""

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmn_plugin.models.ranking import rank
from mmn_plugin.structures import GroundingDataSample


def rank_moments(
    spans: Tensor,
    scores: Tensor,
    sentence_video: Tensor,
    data_samples: list[GroundingDataSample],
    nms_threshold: float,
    top_n: int,
    **beside: Tensor,
) -> list[GroundingDataSample]:
    """Give the samples the best moments of their sentences after NMS.

    Args:
        spans (Tensor): (B, P, 2) start and end in seconds.
        scores (Tensor): (S, P).
        sentence_video (Tensor): (S,), place of each sentence's video among the samples.
        data_samples (list[GroundingDataSample]): B videos.
        nms_threshold (float): IoU above which a moment gives way to a better one.
        top_n (int): Moments kept for a sentence (n).
        **beside (Tensor): (S, ...), further entries of ``pred_instances``.

    Returns:
        list[GroundingDataSample]: The samples, with ``pred_instances``: ``moments`` (s, n, 2)
        in seconds and ``scores`` (s, n), NaN-padded, and those beside, all on the CPU.
    """
    values = rank(spans, scores, nms_threshold, top_n, sentence_video, list(beside.values()))
    counts = [len(sample.sentences) for sample in data_samples]
    for sample, *own in zip(data_samples, *(value.split(counts) for value in values), strict=True):
        # copies: pickled, each would bring the memory of the whole batch
        sample.pred_instances = InstanceData(
            **{
                name: value.clone()
                for name, value in zip(('moments', 'scores', *beside), own, strict=True)
            }
        )
    return data_samples


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
