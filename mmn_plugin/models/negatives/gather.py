"""Candidates of all ranks, with gradients that find their way back."""

from itertools import accumulate

import numpy as np
import torch
import torch.distributed as dist
from mmengine.dist import all_gather_object, get_rank
from torch import Tensor
from torch.autograd.function import once_differentiable

from .candidates import Candidates


class _GatherRows(torch.autograd.Function):
    """All ranks' rows one after the other; backward sums what all ranks say about mine."""

    @staticmethod
    def forward(ctx, rows, sizes):
        ctx.sizes = sizes
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = rows.new_empty(len(sizes), *padded.shape)
        dist.all_gather(list(gathered.unbind()), padded)
        if min(sizes) == max(sizes):
            return gathered.flatten(0, 1)
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        gradient = gradient.contiguous().clone()  # the sum is taken in place
        dist.all_reduce(gradient)
        return gradient.split(ctx.sizes)[get_rank()], None


def gather_rows(rows: Tensor, sizes: list[int]) -> Tensor:
    """Concatenate a tensor's rows over ranks.

    The gradient of a row is the sum of all ranks' gradients of it, as if one process had computed
    the sum of all ranks' losses.

    Args:
        rows (Tensor): (n, ...), n = ``sizes[rank]``.
        sizes (list[int]): Rows of each rank.

    Returns:
        Tensor: (sum of ``sizes``, ...), in order of ranks, the same on every rank.
    """
    return _GatherRows.apply(rows.contiguous(), sizes)


def _gather_known(rows: Tensor | None, sizes: list[int]) -> Tensor | None:
    return None if rows is None else gather_rows(rows, sizes)


def gather_candidates(own: Candidates) -> tuple[Candidates, int, int]:
    """Every rank's candidates; ranks may have different numbers of videos and of sentences.

    Returns:
        tuple[Candidates, int, int]: All of them in order of ranks, and the places of this rank's
        first video and first sentence among them.
    """
    parts = all_gather_object((own.video_ids, own.sentence_video, own.texts))
    videos = [len(video_ids) for video_ids, _, _ in parts]
    sentences = [len(sentence_video) for _, sentence_video, _ in parts]
    first_video = [0, *accumulate(videos)]
    gathered = Candidates(
        moments=gather_rows(own.moments, videos),
        sentences=gather_rows(own.sentences, sentences),
        ground_truth=_gather_known(own.ground_truth, sentences),
        sentence_video=np.concatenate(
            [
                sentence_video + first
                for (_, sentence_video, _), first in zip(parts, first_video, strict=False)
            ]
        ),
        video_ids=[name for video_ids, _, _ in parts for name in video_ids],
        texts=None if own.texts is None else [text for _, _, texts in parts for text in texts],
        iou=_gather_known(own.iou, sentences),
    )
    rank = get_rank()
    return gathered, first_video[rank], sum(sentences[:rank])
