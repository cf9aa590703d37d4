"""Chance level: the figures of a ranking that knows nothing."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmn_plugin.ranking import nms, take_moments
from mmn_plugin.structures import MomentGrid, temporal_iou

from .recall import ranked_iou, recall_of_iou

_CHUNK = 2048  # sentences worked on together: some 20 MB per array for the largest published grid


def chance_level(
    moments: Tensor,
    durations: Tensor,
    grid: MomentGrid,
    iou_threshold: float,
    top_n: Sequence[int] = (1, 5),
    iou_thrs: Sequence[float] = (0.3, 0.5, 0.7),
    seed: int = 0,
    min_samples: int = 10_000,
) -> tuple[Tensor, float]:
    """R@n, IoU=m and mean IoU of a random ranking of the grid's moments after NMS.

    Every order of the moments is equally likely. The first one is then any of them, untouched by
    NMS, so R@1 and mean IoU are exact: averages over all moments. R@n for n > 1 is measured: random
    scores for every sentence go through the same NMS and recall as a model's, repeated until
    ``min_samples`` rankings were drawn (standard error of a figure p:
    sqrt(p (1 - p) / min_samples), at most 0.5 % of 10,000).

    Args:
        moments (Tensor): (S, 2) ground truth in seconds.
        durations (Tensor): (S,) seconds, the length of each sentence's video.
        grid (MomentGrid): Moments that a model would choose from.
        iou_threshold (float): Threshold of NMS.
        top_n (Sequence[int]): The n of R@n.
        iou_thrs (Sequence[float]): The m of IoU=m.
        seed (int): Of the random rankings. Defaults to 0.
        min_samples (int): Least number of rankings drawn. Defaults to 10,000.

    Returns:
        tuple[Tensor, float]: (len(top_n), len(iou_thrs)) float64 recall, and mean IoU; in [0, 1].
    """
    moments, durations = moments.to(torch.float32), durations.to(torch.float32)
    generator = torch.Generator().manual_seed(seed)
    repeats = math.ceil(min_samples / len(moments)) if max(top_n) > 1 else 0
    single = torch.zeros(len(iou_thrs), dtype=torch.int64)
    table = torch.zeros(len(top_n), len(iou_thrs), dtype=torch.float64)
    mean_ious = []
    for rows in torch.arange(len(moments)).split(_CHUNK):
        spans = grid.spans(durations[rows])  # (s, P, 2)
        iou = temporal_iou(spans, moments[rows, None])  # (s, P)
        mean_ious += iou.double().mean(1).tolist()
        single += torch.stack([(iou >= thr).sum() for thr in iou_thrs])
        for _ in range(repeats):
            # (0, 1]: a score of 0 would be no candidate
            scores = 1 - torch.rand(len(rows), grid.num_moments, generator=generator)
            picks = nms(spans, scores, iou_threshold, max(top_n))
            ranked = ranked_iou(take_moments(spans, scores, picks)[0], moments[rows])
            table += recall_of_iou(ranked, top_n, iou_thrs) * (len(rows) / repeats)
    for i, n in enumerate(top_n):
        if n == 1:
            table[i] = single.double() / grid.num_moments
    return table / len(moments), math.fsum(mean_ious) / len(moments)
