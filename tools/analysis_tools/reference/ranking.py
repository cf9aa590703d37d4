"""Ranked moments and recall against a golden file."""

import numpy as np
import torch
from torch import Tensor

from mmn_plugin.evaluation import ranked_iou, recall
from mmn_plugin.models import moment_scores, rank
from mmn_plugin.structures import MomentGrid, temporal_iou

from .golden_file import GoldenFile, GoldenFileError, Report, Row


def check_evaluation(golden: GoldenFile, device: str = 'cpu') -> Report:
    """Check a file that holds score maps alone: top-5 moments and the recall table.

    Args:
        golden (GoldenFile): The reference.
        device (str): Where scores are fused and moments ranked. Defaults to ``'cpu'``.
    """
    report = Report()
    grid = grid_of_mask(golden['mask2d'])
    scores = [
        moment_scores(
            torch.from_numpy(golden[f'contrastive/{v}']).float().to(device),
            torch.from_numpy(golden[f'iou_score/{v}']).float().to(device),
            float(golden['score_power']),
        )
        for v in range(len(golden['durations']))
    ]
    check_ranking(report, golden, grid, scores, float(golden['nms_thr']))
    return report


def grid_of_mask(mask: np.ndarray) -> MomentGrid:
    """The grid whose valid cells are those of a mask; its pooling counts follow from the mask.

    Raises:
        GoldenFileError: If no pooling counts give this mask.
    """
    num_clips = len(mask)
    offsets = [offset for offset in range(1, num_clips) if np.diagonal(mask, offset).any()]
    steps = np.diff([0, *offsets])
    levels = int(np.log2(steps.max())) + 1 if len(steps) else 0
    grid = MomentGrid(num_clips, [int((steps == 2**level).sum()) for level in range(levels)])
    if not np.array_equal(grid.mask.numpy(), mask):
        raise GoldenFileError('mask2d is not the mask of any pooling counts')
    return grid


def check_ranking(
    report: Report,
    golden: GoldenFile,
    grid: MomentGrid,
    scores: list[Tensor],
    nms_threshold: float,
    prefix: str = '',
) -> None:
    """Compare top-5 moments and the recall table, given our scores (s, P) of each video.

    They are ranked on the scores' device. Where neighbors in the order differ by at most 1e-6
    relative in score either order passes.
    """
    ranked, ties, wrong = [], 0, []
    for v, score in enumerate(scores):
        spans = grid.spans(float(golden['durations'][v]))
        expected = torch.from_numpy(golden[f'{prefix}top5/{v}'])  # (s, n, 2)
        ours, _ = rank(spans, score, nms_threshold, expected.shape[1])
        differs = (ours.nan_to_num(-1) != expected.nan_to_num(-1)).flatten(1).any(1)
        for s in differs.nonzero()[:, 0].tolist():
            reason, _ = check_greedy(spans, score[s].cpu(), expected[s], nms_threshold)
            if reason:
                wrong.append(f'video {v} sentence {s}: {reason}')
                continue
            ties += 1
            ours[s] = expected[s]
        ranked.append(ours)
    note = f'{sum(map(len, scores))} sentences, {ties} with near-equal scores in another order'
    failed = float(bool(wrong))
    report.rows.append(
        Row(f'{prefix}top5', failed, failed, 0.0, not wrong, '; '.join(wrong[:3]) or note)
    )
    expected = golden.json(f'{prefix}recall_json')
    named = [key.split(',IoU@') for key in expected if ',IoU@' in key]
    table = published_recall_table(
        torch.cat(ranked),
        torch.cat([torch.from_numpy(golden[f'moments/{v}']) for v in range(len(scores))]),
        sorted({int(n.removeprefix('R@')) for n, _ in named}),
        sorted({float(m) for _, m in named}),
    )
    report.compare(f'{prefix}recall', table, expected, 0.0)


def published_recall_table(
    ranked: Tensor, ground_truth: Tensor, top_n: list[int], iou_thresholds: list[float]
) -> dict[str, float]:
    """`recall` under the published code's names and in its float32.

    Args:
        ranked (Tensor): (S, n, 2) seconds, as of `ranked_iou`.
        ground_truth (Tensor): (S, 2) seconds.
        top_n (Sequence[int]): The n of R@n.
        iou_thresholds (Sequence[float]): The m of IoU=m.

    Returns:
        dict[str, float]: ``R@n,IoU@m``, and ``Best_Rn``, the mean over the thresholds; in [0, 1].
    """
    # The published counts are float32, so their quotient is rounded to it.
    table = recall(ranked_iou(ranked, ground_truth), top_n, iou_thresholds).float()
    named = {
        f'R@{n},IoU@{thr:g}': float(table[i, j])
        for i, n in enumerate(top_n)
        for j, thr in enumerate(iou_thresholds)
    }
    return named | {f'Best_R{n}': float(table[i].mean()) for i, n in enumerate(top_n)}


def check_greedy(
    spans: Tensor, scores: Tensor, picked: Tensor, iou_threshold: float, rel_tol: float = 1e-6
) -> tuple[str, int]:
    """Check a ranking of one sentence's moments against greedy NMS.

    Two implementations whose scores agree to rounding may rank near-equal ones either way, and the
    order of equal ones is open anyway. So each picked moment must be a candidate (score != 0) that
    no earlier pick suppresses, scored at most ``rel_tol`` below the best such candidate; and the
    ranking may end early (NaN) only where no candidate is left.

    Args:
        spans (Tensor): (P, 2) seconds.
        scores (Tensor): (P,).
        picked (Tensor): (n, 2) seconds, best first, NaN where fewer; equal to rows of ``spans`` in
            float32.
        iou_threshold (float): As for `nms`.
        rel_tol (float): Relative difference up to which scores count as equal. Defaults to 1e-6.

    Returns:
        tuple[str, int]: What is wrong, empty for a greedy ranking; and how often it took another
        moment than the first of the best-scored ones left, which is what `nms` takes.
    """
    spans, picked = spans.to(torch.float32), picked.to(torch.float32)
    alive = scores.masked_fill(scores == 0, -torch.inf).to(torch.float64)
    ties = 0
    for place, moment in enumerate(picked):
        best = alive.max().item()
        if moment.isnan().any():
            if best > -torch.inf:
                return f'rank {place} is empty but a candidate is left', ties
            later = not picked[place:].isnan().all()
            return f'rank {place} is empty but a later one is not' if later else '', ties
        index = (spans == moment).all(-1).nonzero()[:, 0]
        named = f'rank {place}: {moment.tolist()}'
        if len(index) == 0:
            return f'{named} is no moment', ties
        index = index[alive[index].argmax()]
        score = alive[index].item()
        if score == -torch.inf:
            return f'{named} has score 0 or is suppressed by an earlier one', ties
        if best - score > rel_tol * abs(best):
            return f'{named} has score {score:.9g}, but a candidate of {best:.9g} is left', ties
        ties += int(index != alive.argmax())
        alive[temporal_iou(spans, moment) > iou_threshold] = -torch.inf
        alive[index] = -torch.inf
    return '', ties
