"""Recall of ranked moments: R@n, IoU=m and mean IoU."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmn_plugin.structures.temporal_iou import temporal_iou


def ranked_iou(ranked: Tensor, ground_truth: Tensor) -> Tensor:
    """IoU of every ranked moment with its sentence's ground truth.

    Args:
        ranked (Tensor): (S, n, 2) seconds, best first, NaN where fewer than n.
        ground_truth (Tensor): (S, 2) seconds.

    Returns:
        Tensor: (S, n) float32 in [0, 1], 0 where there is no moment.
    """
    iou = temporal_iou(ranked.to(torch.float32), ground_truth.to(torch.float32)[:, None])
    return iou.nan_to_num(nan=0.0)


def recall_of_iou(iou: Tensor, top_n: Sequence[int], iou_thrs: Sequence[float]) -> Tensor:
    """`recall`, given the IoU (S, n) of `ranked_iou`.

    Raises:
        ValueError: If ``top_n`` asks for more moments than are ranked, or no sentence is given.
    """
    if len(iou) == 0:
        raise ValueError('there is no sentence to evaluate')
    if max(top_n) > iou.shape[1]:
        raise ValueError(
            f'R@{max(top_n)} is asked for, but only {iou.shape[1]} moments are ranked '
            'for a sentence; let the model keep more (top_n in its test_cfg)'
        )
    best = iou.cummax(dim=1).values[:, [n - 1 for n in top_n]]  # (S, len(top_n))
    # One comparison per threshold: against a scalar it is made in float32, as published
    hits = torch.stack([(best >= thr).sum(0) for thr in iou_thrs], dim=1)
    return hits.double() / len(iou)


def recall(
    ranked: Tensor, ground_truth: Tensor, top_n: Sequence[int], iou_thresholds: Sequence[float]
) -> Tensor:
    """R@n, IoU=m: share of sentences for which one of the first n moments has IoU >= m.

    Args:
        ranked (Tensor): (S, n, 2) seconds, best first, NaN where fewer than n.
        ground_truth (Tensor): (S, 2) seconds.
        top_n (Sequence[int]): The n of R@n.
        iou_thresholds (Sequence[float]): The m; compared in float32.

    Returns:
        Tensor: (len(top_n), len(iou_thresholds)) float64 in [0, 1].

    Raises:
        ValueError: If ``top_n`` asks for more moments than are ranked, or no sentence is given.
    """
    return recall_of_iou(ranked_iou(ranked, ground_truth), top_n, iou_thresholds)


def mean_iou(iou: Tensor) -> float:
    """Mean over the sentences of the best-ranked moment's IoU.

    Args:
        iou (Tensor): (S, n) of `ranked_iou`.

    Returns:
        float: In [0, 1]; the exactly rounded sum over S, so that no order of sentences changes it.
    """
    return math.fsum(iou[:, 0].tolist()) / len(iou)


def published_recall_table(
    ranked: Tensor, ground_truth: Tensor, top_n: Sequence[int], iou_thresholds: Sequence[float]
) -> dict[str, float]:
    """`recall` under the published code's names and in its float32.

    Returns:
        dict[str, float]: ``R@n,IoU@m``, and ``Best_Rn``, the mean over the thresholds; in [0, 1].
    """
    # The published counts are float32, so their quotient is rounded to it.
    table = recall(ranked, ground_truth, top_n, iou_thresholds).float()
    named = {
        f'R@{n},IoU@{thr:g}': float(table[i, j])
        for i, n in enumerate(top_n)
        for j, thr in enumerate(iou_thresholds)
    }
    return named | {f'Best_R{n}': float(table[i].mean()) for i, n in enumerate(top_n)}
