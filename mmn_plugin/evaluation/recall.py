"""Recall, mean IoU, average precision and the chance level of ranked moments."""

import math
from collections.abc import Sequence
from io import StringIO

import numpy as np
import torch
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.structures import MomentGrid, best_iou

# Of average precision, as QVHighlights has it: IoU, and windows of a query that are taken.
PRECISION_THRESHOLDS = [round(0.5 + 0.05 * step, 2) for step in range(10)]
PRECISION_WINDOWS = 10


def ranked_iou(ranked: Tensor, ground_truth: Tensor) -> Tensor:
    """IoU of every ranked moment with that of its sentence's true windows that it fits best.

    Args:
        ranked (Tensor): (S, n, 2) seconds, best first, NaN where fewer than n.
        ground_truth (Tensor): (S, 2) seconds, or (S, M, 2) of several windows, NaN where a sentence
            has fewer than M.

    Returns:
        Tensor: (S, n) float32 in [0, 1], 0 where there is no moment or no window.
    """
    truth = ground_truth.to(torch.float32)
    return best_iou(truth if truth.dim() == 3 else truth[:, None], ranked.to(torch.float32))


def recall(iou: Tensor, top_n: Sequence[int], iou_thrs: Sequence[float]) -> Tensor:
    """R@n, IoU=m: share of sentences for which one of the first n moments has IoU >= m.

    Args:
        iou (Tensor): (S, k) of `ranked_iou`.
        top_n (Sequence[int]): The n of R@n, at most k.
        iou_thrs (Sequence[float]): The m; compared in float32.

    Returns:
        Tensor: (len(top_n), len(iou_thrs)) float64 in [0, 1].

    Raises:
        ValueError: If ``top_n`` asks for more moments than are ranked, or no sentence is given.
    """
    if len(iou) == 0:
        raise InputError('there is no sentence to evaluate')
    if max(top_n) > iou.shape[1]:
        raise InputError(
            f'R@{max(top_n)} is asked for, but only {iou.shape[1]} moments are ranked '
            'for a sentence; let the model keep more (top_n in its test_cfg)'
        )
    best = iou.cummax(dim=1).values[:, [n - 1 for n in top_n]]  # (S, len(top_n))
    # One comparison per threshold: against a scalar it is made in float32, as published
    hits = torch.stack([(best >= thr).sum(0) for thr in iou_thrs], dim=1)
    return hits.double() / len(iou)


def mean_iou(iou: Tensor) -> float:
    """Mean over the sentences of the best-ranked moment's IoU.

    Args:
        iou (Tensor): (S, n) of `ranked_iou`.

    Returns:
        float: In [0, 1]; the exactly rounded sum over S, so that no order of sentences changes it.
    """
    return math.fsum(iou[:, 0].tolist()) / len(iou)


def format_table(rows: dict[str, dict[str, float]]) -> str:
    """Figures of groups of sentences as tables in plain text, in percent.

    Sentences that do not occur have other figures, and a table of their own below.

    Args:
        rows (dict[str, dict[str, float]]): As of `GroundingMetric.summarize`.
    """
    absent = {name: row for name, row in rows.items() if f'/{name}'.endswith('/absent')}
    here = {name or 'all': row for name, row in rows.items() if name not in absent}
    return '\n'.join(_format_table(part) for part in (here, absent) if part)


def _format_table(rows: dict[str, dict[str, float]]) -> str:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    names.remove('num_sentences')
    table = Table(box=SIMPLE)
    table.add_column('sentences')
    for name in ('number', *names):
        table.add_column(name, justify='right', no_wrap=True)
    for group, figures in rows.items():
        values = [f'{figures[name]:.2f}' if name in figures else '' for name in names]
        table.add_row(group, f'{figures["num_sentences"]:.0f}', *values)
    console = Console(file=StringIO(), width=40 + 11 * len(names), color_system=None)
    console.print(table)
    return '\n'.join(line.rstrip() for line in console.file.getvalue().splitlines() if line.strip())


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
        moments (Tensor): (S, 2) or (S, M, 2) ground truth in seconds, as of `ranked_iou`: a moment
            counts by the window that it fits best.
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
    from mmn_plugin.models import nms, take_moments  # figures of files need no model

    moments, durations = moments.to(torch.float32), durations.to(torch.float32)
    generator = torch.Generator().manual_seed(seed)
    repeats = math.ceil(min_samples / len(moments)) if max(top_n) > 1 else 0
    single = torch.zeros(len(iou_thrs), dtype=torch.int64)
    table = torch.zeros(len(top_n), len(iou_thrs), dtype=torch.float64)
    mean_ious = []
    for rows in torch.arange(len(moments)).split(_CHUNK):
        spans = grid.spans(durations[rows])  # (s, P, 2)
        iou = ranked_iou(spans, moments[rows])  # (s, P)
        mean_ious += iou.double().mean(1).tolist()
        single += torch.stack([(iou >= thr).sum() for thr in iou_thrs])
        for _ in range(repeats):
            # (0, 1]: a score of 0 would be no candidate
            scores = 1 - torch.rand(len(rows), grid.num_moments, generator=generator)
            picks = nms(spans, scores, iou_threshold, max(top_n))
            ranked = ranked_iou(take_moments(spans, scores, picks)[0], moments[rows])
            table += recall(ranked, top_n, iou_thrs) * (len(rows) / repeats)
    for i, n in enumerate(top_n):
        if n == 1:
            table[i] = single.double() / grid.num_moments
    return table / len(moments), math.fsum(mean_ious) / len(moments)


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
    free = np.repeat(true[..., None], len(PRECISION_THRESHOLDS), axis=2)  # (Q, T, 10)
    hits = np.zeros((len(iou), iou.shape[1], len(PRECISION_THRESHOLDS)), bool)  # (Q, P, 10)
    for rank in range(iou.shape[1]):
        fit = np.where(free, iou[:, rank, :, None], -1)
        best = fit.shape[1] - 1 - fit[:, ::-1].argmax(1, keepdims=True)  # the last among equals
        hit = np.take_along_axis(fit, best, 1) >= PRECISION_THRESHOLDS  # (Q, 1, 10)
        np.put_along_axis(free, best, np.take_along_axis(free, best, 1) & ~hit, 1)
        hits[:, rank] = hit[:, 0]
    found = hits.cumsum(1)
    reached = found / true.sum(1).clip(1)[:, None, None]
    precision = found / np.arange(1, iou.shape[1] + 1)[:, None]
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    return (np.diff(reached, axis=1, prepend=0) * precision).sum(1)


def ranked_precision(ranked: Tensor, windows: Tensor) -> np.ndarray:
    """`average_precision` of the first 10 ranked moments of each sentence.

    Args:
        ranked (Tensor): (S, n, 2) seconds, best first, NaN where fewer than n.
        windows (Tensor): (S, M, 2) true windows in seconds, NaN where fewer than M.

    Returns:
        np.ndarray: (S, 10) in [0, 1]; 0 where there is no moment.
    """
    given = []
    for moments in (ranked[:, :PRECISION_WINDOWS], windows):
        moments = moments.to(torch.float64).numpy()
        given += [moments, ~np.isnan(moments).any(-1)]
    return average_precision(window_iou(*given), given[-1])
