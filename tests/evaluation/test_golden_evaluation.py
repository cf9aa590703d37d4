"""The published code's ranked moments and recall tables, reproduced."""

import json

import pytest
import torch
from reference.ranking import check_greedy, published_recall_table

from mmn_plugin.models import moment_scores, nms, take_moments

EVALUATION = ['eval_tacos', 'eval_charades', 'eval_activitynet']
MODELS = ['tacos_pool', 'charades_pool', 'charades_conv', 'activitynet_pool', 'activitynet_conv']


def golden_videos(figures, lead):
    """Per video: spans, scores, the published top five, ground truth."""
    settings = json.loads(str(figures['config_json'])) if lead else figures
    cells = torch.from_numpy(figures['mask2d']).nonzero() + torch.tensor([0, 1])  # (P, 2)
    for i, duration in enumerate(torch.from_numpy(figures['durations']).float()):
        contrastive, iou, top5 = (
            torch.from_numpy(figures[f'{lead}{name}/{i}'])
            for name in ('contrastive', 'iou_score', 'top5')
        )
        scores = moment_scores(contrastive, iou, float(settings['score_power']))
        spans = cells.float() * duration / len(figures['mask2d'])
        yield spans, scores, top5, torch.from_numpy(figures[f'moments/{i}'])


@pytest.mark.parametrize('name', EVALUATION + MODELS)
def test_ranked_moments_and_recall_equal_the_published_codes(golden, name):
    figures, lead = golden(name), 'eval/' if name in MODELS else ''
    settings = json.loads(str(figures['config_json'])) if lead else figures
    iou_threshold = float(settings['nms_thr'])
    ranked, truth = [], []
    for spans, scores, top5, moments in golden_videos(figures, lead):
        picks = nms(spans, scores, iou_threshold, 5)
        ours = take_moments(spans, scores, picks)[0]
        same = (ours == top5) | (ours.isnan() & top5.isnan())
        for s in (~same).flatten(1).any(1).nonzero()[:, 0].tolist():
            reason, ties = check_greedy(spans, scores[s], top5[s], iou_threshold)
            assert not reason
            assert ties
        ranked.append(ours)
        truth.append(moments)
    expected = json.loads(
        str(figures['recall_json']) if not lead else str(figures['eval/recall_json'])
    )
    iou_thrs = sorted({float(key.split('@')[2]) for key in expected if 'IoU' in key})
    assert published_recall_table(torch.cat(ranked), torch.cat(truth), (1, 5), iou_thrs) == expected
