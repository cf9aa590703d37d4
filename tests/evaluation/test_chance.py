import pytest
import torch

from mmn_plugin.evaluation import chance_level, ranked_iou, recall
from mmn_plugin.models import nms, take_moments
from mmn_plugin.structures import MomentGrid

GRID = MomentGrid(8, [7])
MOMENTS, DURATIONS = (
    torch.tensor([[1.0, 5.0], [0.0, 16.0], [3.0, 4.0]]),
    torch.tensor([8.0, 16.0, 12.0]),
)


def test_first_rank_is_the_exact_share_of_moments():
    table, miou = chance_level(MOMENTS, DURATIONS, GRID, 0.5, top_n=(1,), iou_thrs=(0.3, 0.7))
    iou = torch.cat([GRID.iou(m[None], float(d)) for m, d in zip(MOMENTS, DURATIONS, strict=True)])
    expected = [(iou >= thr).double().mean().item() for thr in (0.3, 0.7)]
    assert table[0].tolist() == pytest.approx(expected, abs=1e-12)
    assert miou == pytest.approx(iou.double().mean().item(), abs=1e-12)


def test_further_ranks_agree_with_random_rankings_of_another_seed():
    table, _ = chance_level(MOMENTS, DURATIONS, GRID, 0.5, top_n=(1, 5), iou_thrs=(0.5,))
    moments, durations = MOMENTS.repeat(4000, 1), DURATIONS.repeat(4000)
    spans, scores = GRID.spans(durations), torch.rand(12000, GRID.num_moments) + 1
    ranked, _ = take_moments(spans, scores, nms(spans, scores, 0.5, 5))
    measured = recall(ranked_iou(ranked, moments), (1, 5), (0.5,))
    assert table.flatten().tolist() == pytest.approx(measured.flatten().tolist(), abs=0.02)
    assert table[1] > 2 * table[0]


def test_the_same_seed_gives_the_same_figures():
    tables = [
        chance_level(MOMENTS, DURATIONS, GRID, 0.5, min_samples=300, seed=seed)[0][1]
        for seed in (3, 3, 4)
    ]
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
