"""Average precision of ranked windows, as QVHighlights defines it."""

import numpy as np
import torch
from torch import Tensor

THRESHOLDS = [round(0.5 + 0.05 * step, 2) for step in range(10)]  # of IoU
LONGEST = 10  # windows of a query that mAP takes


def window_iou(
    predicted: np.ndarray, predicted_there: np.ndarray, true: np.ndarray, there: np.ndarray
) -> np.ndarray:
    """IoU of predicted with true windows, by the ordinary union.

    Args:
        predicted (np.ndarray): (Q, P, 2 or more) start and end in seconds.
        predicted_there (np.ndarray): (Q, P) bool, which there are.
        true (np.ndarray): (Q, T, 2).
        there (np.ndarray): (Q, T) bool.

    Returns:
        np.ndarray: (Q, P, T); 0 of two equal instants, -1 where one of the windows is not there.
    """
    start, end = predicted[:, :, None, 0], predicted[:, :, None, 1]
    true_start, true_end = true[:, None, :, 0], true[:, None, :, 1]
    common = (np.minimum(end, true_end) - np.maximum(start, true_start)).clip(0)
    union = end - start + (true_end - true_start) - common
    # Windows of less than float32 resolves are instants: nothing is divided by nothing.
    iou = np.divide(common, union, out=np.zeros_like(union), where=union != 0)
    return np.where(predicted_there[:, :, None] & there[:, None], iou, -1)


def average_precision(iou: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Average precision of each query at each of the IoU thresholds, as of VOC 2011.

    Each predicted window takes the true one of highest IoU that is still free, if that reaches the
    threshold.

    Args:
        iou (np.ndarray): (Q, P, T) of predicted windows, best first, and true ones; -1 where there
            is none.
        true (np.ndarray): (Q, T) bool, which true windows there are.

    Returns:
        np.ndarray: (Q, 10) in [0, 1]; 0 where there is no true window.
    """
    free = np.repeat(true[..., None], len(THRESHOLDS), axis=2)  # (Q, T, 10)
    hits = np.zeros((len(iou), iou.shape[1], len(THRESHOLDS)), bool)  # (Q, P, 10)
    for rank in range(iou.shape[1]):
        fit = np.where(free, iou[:, rank, :, None], -1)
        best = fit.shape[1] - 1 - fit[:, ::-1].argmax(1, keepdims=True)  # the last among equals
        hit = np.take_along_axis(fit, best, 1) >= THRESHOLDS  # (Q, 1, 10)
        np.put_along_axis(free, best, np.take_along_axis(free, best, 1) & ~hit, 1)
        hits[:, rank] = hit[:, 0]
    found = hits.cumsum(1)
    recall = found / true.sum(1).clip(1)[:, None, None]
    precision = found / np.arange(1, iou.shape[1] + 1)[:, None]
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    return (np.diff(recall, axis=1, prepend=0) * precision).sum(1)


def ranked_precision(ranked: Tensor, windows: Tensor) -> np.ndarray:
    """`average_precision` of the first 10 ranked moments of each sentence.

    Args:
        ranked (Tensor): (S, n, 2) seconds, best first, NaN where fewer than n.
        windows (Tensor): (S, M, 2) true windows in seconds, NaN where fewer than M.

    Returns:
        np.ndarray: (S, 10) in [0, 1]; 0 where there is no moment.
    """
    given = []
    for moments in (ranked[:, :LONGEST], windows):
        moments = moments.to(torch.float64).numpy()
        given += [moments, ~np.isnan(moments).any(-1)]
    return average_precision(window_iou(*given), given[-1])
