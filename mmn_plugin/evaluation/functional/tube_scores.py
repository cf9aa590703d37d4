"""Figures of spatio-temporal grounding from the IoUs of single answers."""

from collections.abc import Sequence

import numpy as np

from mmn_plugin.structures import MomentGrid, cell_bounds, cell_iou


def check_thresholds(iou_thrs: Sequence[float]) -> None:
    """Refuse an R of vIoU@R that is none, such as a percentage.

    Raises:
        ValueError: If one is outside [0, 1).
    """
    if any(not 0 <= thr < 1 for thr in iou_thrs):
        raise ValueError(f'iou_thrs={list(iou_thrs)}: every R of vIoU@R lies in [0, 1)')


def tube_figures(
    v_iou: Sequence[float], t_iou: Sequence[float], iou_thrs: Sequence[float] = (0.3, 0.5)
) -> dict[str, float]:
    """m_vIoU, m_tIoU and the share of answers with vIoU > R.

    Args:
        v_iou (Sequence[float]): Spatio-temporal IoU of each sentence's answer.
        t_iou (Sequence[float]): Temporal IoU of each.
        iou_thrs (Sequence[float]): The R. Defaults to (0.3, 0.5).

    Returns:
        dict[str, float]: ``m_vIoU``, ``m_tIoU``, ``vIoU@0.3``, ..., all as fractions.

    Raises:
        ValueError: If there is no answer.
    """
    v_iou, t_iou = np.asarray(v_iou, np.float64), np.asarray(t_iou, np.float64)
    if not len(v_iou):
        raise ValueError('there is no answer to score')
    shares = {f'vIoU@{thr:g}': float((v_iou > thr).mean()) for thr in iou_thrs}
    return dict(m_vIoU=float(v_iou.mean()), m_tIoU=float(t_iou.mean()), **shares)


def tube_bounds(
    grid: MomentGrid,
    tubes: Sequence[np.ndarray],
    truth: np.ndarray,
    iou_thrs: Sequence[float] = (0.3, 0.5),
) -> dict[str, float]:
    """What candidates allow: the best answer (oracle), and a random tube and span (chance).

    Args:
        grid (MomentGrid): The cells of a tube.
        tubes (Sequence[np.ndarray]): Candidates, (n, 5) each.
        truth (np.ndarray): (m, 5).
        iou_thrs (Sequence[float]): The R of vIoU@R. Defaults to (0.3, 0.5).

    Returns:
        dict[str, float]: ``oracle_m_vIoU``, ``oracle_vIoU@0.3``, ...: those of the cell of highest
        vIoU; ``chance_m_vIoU``, ...: the means over all cells that hold a box, each tube's cells
        weighing the same in all, which is what drawing a tube and then a span gives. All 0 where
        there is no candidate.
    """
    means, best, shares = [], 0.0, []
    if len(tubes):
        bounds = cell_bounds(grid, [len(tube) for tube in tubes])
        overlaps = cell_iou(grid, tubes, truth, bounds)  # (T, P)
        best = float(overlaps.max())
        for row, (first, last) in zip(overlaps, np.moveaxis(bounds, -1, 1), strict=True):
            row = row[first < last].astype(np.float64)
            means.append(row.mean())
            shares.append([(row > thr).mean() for thr in iou_thrs])
    shares = np.mean(shares, 0) if shares else np.zeros(len(iou_thrs))
    result = dict(oracle_m_vIoU=best, chance_m_vIoU=float(np.mean(means)) if means else 0.0)
    for thr, share in zip(iou_thrs, shares, strict=True):
        result[f'oracle_vIoU@{thr:g}'] = float(best > thr)
        result[f'chance_vIoU@{thr:g}'] = float(share)
    return result
