"""What all heads share: scores, curves, ranking; of one video and of several."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_models import sample_of

from mmn_plugin.errors import InputError
from mmn_plugin.models import BaseHead, expected_iou, score_curve
from mmn_plugin.structures import MomentGrid, VideoEmbedding

GRID = MomentGrid(6, [5])


class MeanHead(BaseHead):
    """A head of as many spaces as there are: the mean of their cosines."""

    def loss(self, embeddings, sentences, sentence_video, data_samples):
        return dict(loss_mean=sum(value.mean() for value in embeddings.values()))

    def fuse(self, cosines, video, counts=None):
        return 0.5 + 0.5 * torch.stack(list(cosines.values())).mean(0)


def embeddings(*shape, spaces=('a', 'b', 'contrastive')):
    return {space: torch.randn(*shape) for space in spaces}


def test_a_head_that_says_how_three_spaces_fuse_scores_and_ranks():
    torch.manual_seed(0)
    head = MeanHead(GRID, nms_threshold=0.5)
    samples = [sample_of('v', ['x', 'y'], 20.0), sample_of('w', ['z'], 33.0)]
    videos, sentences = embeddings(2, GRID.num_moments, 4), embeddings(3, 4)
    split = head.split(videos, samples)
    ranked = head.predict(split, sentences, samples)
    for place, rows in ((0, slice(0, 2)), (1, slice(2, 3))):
        own = {space: value[rows] for space, value in sentences.items()}
        expected = 0.5 + 0.5 * torch.stack(
            [
                F.normalize(own[space], dim=-1) @ F.normalize(videos[space][place], dim=-1).T
                for space in videos
            ]
        ).mean(0)
        torch.testing.assert_close(head.score(split[place], own), expected)
        alone = head.ground(split[place], own)
        torch.testing.assert_close(ranked[place].pred_instances.scores, alone.scores)
        assert torch.equal(ranked[place].pred_instances.moments, alone.moments)
        torch.testing.assert_close(alone.presence, head.presence(split[place], own))


@pytest.mark.parametrize('power', [None, 2.0])
def test_videos_of_different_numbers_of_units_are_ranked_together_as_alone(power):
    torch.manual_seed(0)
    head = MeanHead(GRID, nms_threshold=0.5, expected_iou_power=power, curves=True)
    videos = [
        VideoEmbedding(
            {space: F.normalize(value, dim=-1) for space, value in embeddings(units, 4).items()},
            torch.stack([torch.arange(units), torch.arange(units) + 1], 1).float(),
            f'v{units}',
            float(units),
        )
        for units in (3, 7, 5)
    ]
    samples = [sample_of(video.video_id, ['x'], video.duration) for video in videos]
    sentences = embeddings(3, 4)
    head.predict(videos, sentences, samples)
    for place, (video, sample) in enumerate(zip(videos, samples, strict=True)):
        own = {space: value[place : place + 1] for space, value in sentences.items()}
        alone, found = head.ground(video, own), sample.pred_instances
        torch.testing.assert_close(found.scores, alone.scores, equal_nan=True)
        torch.testing.assert_close(found.moments, alone.moments, equal_nan=True)
        torch.testing.assert_close(found.presence, alone.presence)
        torch.testing.assert_close(found.curves, head.curve(video, head.score(video, own)))


def test_trust_is_a_factor_on_scores():
    torch.manual_seed(0)
    head = MeanHead(GRID, nms_threshold=0.5)
    (video,) = head.split(embeddings(1, GRID.num_moments, 4), [sample_of('v', ['x'], 20.0)])
    sentences = embeddings(2, 4)
    whole = head.score(video, sentences)
    video.trust = torch.rand(GRID.num_moments)
    torch.testing.assert_close(head.score(video, sentences), whole * video.trust)


def test_the_curve_is_the_best_score_around_each_clip():
    values = torch.rand(2, GRID.num_moments)
    expected = [
        [
            max(
                float(v)
                for v, i, j in zip(row, GRID.starts, GRID.ends, strict=True)
                if i <= clip <= j
            )
            for clip in range(6)
        ]
        for row in values
    ]
    assert np.allclose(score_curve(GRID.spans(24.0), values, 24.0, steps=6), expected)
    spans = torch.tensor([[0.0, 4.0], [2.0, 6.0]])  # 0 where there is no moment
    curve = score_curve(spans, torch.tensor([[0.3, 0.8]]), 8.0, steps=4)
    assert torch.equal(curve, torch.tensor([[0.3, 0.8, 0.8, 0.0]]))


def test_a_ranking_begins_with_the_highest_expected_iou_and_goes_on_by_score():
    torch.manual_seed(0)
    plain = MeanHead(GRID, nms_threshold=1.0, top_n=GRID.num_moments)
    head = MeanHead(GRID, 1.0, GRID.num_moments, expected_iou_power=3.0)
    spans = GRID.spans(20.0)
    video = VideoEmbedding({}, spans, 'v', 20.0)
    scores = torch.rand(8, GRID.num_moments)
    found, by_score = head.rank(video, scores).moments, plain.rank(video, scores).moments
    first = spans[expected_iou(spans, scores, 3.0).argmax(1)]  # (8, 2)
    assert torch.equal(found[:, 0], first)
    assert not torch.equal(found[:, 0], by_score[:, 0])
    for row, order, one in zip(found, by_score, first, strict=True):
        others = order[(order != one).any(1)]
        assert torch.equal(row[1:], others)


def test_a_power_of_scores_that_is_not_above_0_is_refused():
    with pytest.raises(InputError, match='expected_iou_power=0'):
        MeanHead(GRID, 0.5, expected_iou_power=0)
