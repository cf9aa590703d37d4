import pytest
import torch

from mmn_plugin.evaluation import chance_level, mean_iou, ranked_iou, recall
from mmn_plugin.models import moment_scores, nms, take_moments
from mmn_plugin.structures import MomentGrid, temporal_iou

NAN = float('nan')
GROUND_TRUTH = torch.tensor([[0.0, 10.0], [10.0, 20.0], [0.0, 8.0], [5.0, 6.0]])
RANKED = torch.tensor(
    [
        [[0.0, 5.0], [0.0, 9.0], [0.0, 10.0]],  # IoU 0.5, 0.9, 1
        [[0.0, 5.0], [10.0, 17.5], [NAN, NAN]],  # 0, 0.75
        [[20.0, 30.0], [30.0, 40.0], [0.0, 2.0]],  # 0, 0, 0.25
        [[NAN, NAN], [NAN, NAN], [NAN, NAN]],
    ]
)

IOU = ranked_iou(RANKED, GROUND_TRUTH)


def test_recall_counts_sentences_with_a_hit_among_the_first_n():
    table = recall(IOU, (1, 2, 3), (0.25, 0.5, 0.75, 1.0))
    assert table.tolist() == [[0.25, 0.25, 0, 0], [0.5, 0.5, 0.5, 0], [0.75, 0.5, 0.5, 0.25]]


def test_iou_equal_to_the_threshold_in_float32_is_a_hit():
    # float32's 0.7 is below float64's: compared in float64 this would miss
    ranked, truth = torch.tensor([[[0.0, 7.0]]]), torch.tensor([[0.0, 10.0]])
    iou = ranked_iou(ranked, truth)
    assert float(iou) < 0.7
    assert recall(iou, (1,), (0.7,)).item() == 1


def test_a_moment_counts_by_the_window_that_it_fits_best():
    windows = torch.full((4, 3, 2), NAN)
    windows[:, 0] = GROUND_TRUTH
    assert torch.equal(ranked_iou(RANKED, windows), IOU)
    windows[2, 2] = torch.tensor([30.0, 50.0])
    windows[0] = NAN  # the sentence does not occur
    iou = ranked_iou(RANKED, windows)
    assert iou[2].tolist() == [0, 0.5, 0.25]
    assert iou[0].tolist() == [0, 0, 0]
    assert torch.equal(iou[[1, 3]], IOU[[1, 3]])
    assert ranked_iou(RANKED, windows[:, :0]).tolist() == [[0] * 3] * 4


def test_mean_iou_is_of_the_best_ranked_moment_and_zero_without_one():
    assert mean_iou(IOU) == 0.125


def test_mean_iou_does_not_depend_on_the_order_of_sentences():
    iou = torch.rand(5000, 1)
    assert len({mean_iou(iou[torch.randperm(5000)]) for _ in range(20)}) == 1


def test_more_ranks_than_moments_and_no_sentence_are_errors():
    with pytest.raises(ValueError, match='R@5 is asked for, but only 3'):
        recall(IOU, (1, 5), (0.5,))
    with pytest.raises(ValueError, match='no sentence'):
        recall(IOU[:0], (1,), (0.5,))


def test_a_cosine_rounded_below_minus_one_gives_score_zero():
    contrastive = torch.tensor([[-1.0000001, 0.0, 1.0]])
    scores = moment_scores(contrastive, torch.full((1, 3), 0.5), 0.5)
    assert scores[0, 0] == 0
    torch.testing.assert_close(scores[0, 1:], torch.tensor([0.5**0.5 * 0.5, 0.5]))


GRID = MomentGrid(8, [7])
MOMENTS, DURATIONS = (
    torch.tensor([[1.0, 5.0], [0.0, 16.0], [3.0, 4.0]]),
    torch.tensor([8.0, 16.0, 12.0]),
)


def test_first_rank_is_the_exact_share_of_moments():
    table, miou = chance_level(MOMENTS, DURATIONS, GRID, 0.5, top_n=(1,), iou_thrs=(0.3, 0.7))
    iou = temporal_iou(MOMENTS[:, None], GRID.spans(DURATIONS))
    expected = [(iou >= thr).double().mean().item() for thr in (0.3, 0.7)]
    assert table[0].tolist() == pytest.approx(expected, abs=1e-12)
    assert miou == pytest.approx(iou.double().mean().item(), abs=1e-12)


def test_chance_of_several_windows_is_that_of_the_best_one():
    windows = torch.full((3, 2, 2), NAN)
    windows[:, 1] = MOMENTS
    settings = dict(top_n=(1, 2), iou_thrs=(0.3, 0.7), min_samples=300)
    one = chance_level(MOMENTS, DURATIONS, GRID, 0.5, **settings)
    table, miou = chance_level(windows, DURATIONS, GRID, 0.5, **settings)
    assert torch.equal(table, one[0])
    assert miou == one[1]
    windows[0, 0] = torch.tensor([6.0, 8.0])
    (single, _), miou = chance_level(windows, DURATIONS, GRID, 0.5, **settings)
    overlaps = temporal_iou(windows[0][:, None], GRID.spans(8.0))  # (2, P)
    gained = (overlaps.amax(0) >= 0.3).double().mean() - (overlaps[1] >= 0.3).double().mean()
    assert single[0].item() - one[0][0, 0].item() == pytest.approx(gained.item() / 3)
    assert miou > one[1]


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
