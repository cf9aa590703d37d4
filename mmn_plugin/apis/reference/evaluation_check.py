"""Ranking and recall against a golden file."""

import numpy as np
import torch

from mmn_plugin.evaluation import is_greedy_ranking, published_recall_table
from mmn_plugin.models import moment_scores, rank
from mmn_plugin.structures import MomentGrid

from .golden_file import GoldenFile
from .golden_file_error import GoldenFileError
from .report import Report
from .row import Row


def check_evaluation(golden: GoldenFile, device: str = 'cpu') -> Report:
    """Check a file that holds score maps alone: top-5 moments and the recall table.

    Args:
        golden (GoldenFile): The reference.
        device (str): Where scores are fused and moments ranked. Defaults to ``'cpu'``.
    """
    report = Report()
    try:
        grid = grid_of_mask(golden['mask2d'])
    except ValueError as error:
        raise GoldenFileError(f'{golden.path}: {error}') from error
    videos = range(golden.num_videos)
    scores = [
        moment_scores(
            torch.from_numpy(golden[f'contrastive/{v}']).float().to(device),
            torch.from_numpy(golden[f'iou_score/{v}']).float().to(device),
            float(golden['score_power']),
        )
        for v in videos
    ]
    check_ranking(report, golden, grid, scores, float(golden['nms_thr']), prefix='')
    return report


def grid_of_mask(mask: np.ndarray) -> MomentGrid:
    """The grid whose valid cells are those of a mask; its pooling counts follow from the mask.

    Raises:
        ValueError: If no pooling counts give this mask.
    """
    num_clips = len(mask)
    offsets = [offset for offset in range(1, num_clips) if np.diagonal(mask, offset).any()]
    steps = np.diff([0, *offsets])
    levels = int(np.log2(steps.max())) + 1 if len(steps) else 0
    grid = MomentGrid(num_clips, [int((steps == 2**level).sum()) for level in range(levels)])
    if not np.array_equal(grid.mask.numpy(), mask):
        raise ValueError('mask2d is not the mask of any pooling counts')
    return grid


def check_ranking(
    report: Report,
    golden: GoldenFile,
    grid: MomentGrid,
    scores: list[torch.Tensor],
    nms_threshold: float,
    prefix: str,
) -> None:
    """Compare top-5 moments and the recall table, given our scores (s, P) of each video.

    They are ranked on the scores' device.
    Where neighbours in the order differ by at most 1e-6 relative in score either order passes.
    """
    ranked, ties, wrong = [], 0, []
    for v, score in enumerate(scores):
        spans = grid.spans(float(golden['durations'][v]))
        expected = torch.from_numpy(golden[f'{prefix}top5/{v}'])  # (s, n, 2)
        ours, _ = rank(spans, score, nms_threshold, expected.shape[1])
        for s in range(len(score)):
            if torch.equal(ours[s].nan_to_num(-1), expected[s].nan_to_num(-1)):
                continue
            verdict = is_greedy_ranking(spans, score[s].cpu(), expected[s], nms_threshold)
            if not verdict.valid:
                wrong.append(f'video {v} sentence {s}: {verdict.reason}')
                continue
            ties += 1
            ours[s] = expected[s]
        ranked.append(ours)
    count = sum(map(len, scores))
    note = f'{count} sentences, {ties} with near-equal scores in another order'
    report.rows.append(
        Row(
            f'{prefix}top5',
            float(bool(wrong)),
            float(bool(wrong)),
            0.0,
            not wrong,
            '; '.join(wrong[:3]) or note,
        )
    )
    expected = golden.json(f'{prefix}recall_json')
    report.compare(f'{prefix}recall', _recall(golden, ranked, expected), expected, 0.0)


def _recall(golden: GoldenFile, ranked: list[torch.Tensor], expected: dict) -> dict[str, float]:
    """The recall table under the published names, for the n and m the reference names."""
    named = [key.split(',IoU@') for key in expected if ',IoU@' in key]
    top_n = sorted({int(n.removeprefix('R@')) for n, _ in named})
    thresholds = sorted({float(m) for _, m in named})
    ground_truth = torch.cat(
        [torch.from_numpy(golden[f'moments/{v}']) for v in range(golden.num_videos)]
    )
    return published_recall_table(torch.cat(ranked), ground_truth, top_n, thresholds)
