"""Score curves without a map."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from mmn_plugin.structures import GroundingDataSample
from mmn_plugin.visualization import canvas
from mmn_plugin.visualization.curves import draw_score_curves


def sample_of(sentences=('a dog runs', 'it $sleeps$')):
    return GroundingDataSample(
        metainfo=dict(
            video_id='garden',
            duration=24.0,
            sentences=list(sentences),
            sentence_index=list(range(len(sentences))),
        )
    )


def columns(image, color):
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.nonzero((image == wanted).all(-1))[1]


def test_a_curve_is_drawn_where_its_scores_are_and_truth_behind_it():
    sample = sample_of(['a dog runs'])
    sample.gt_instances = InstanceData(moments=torch.tensor([[12.0, 24.0]]))
    image = draw_score_curves(sample, dict(one=torch.rand(1, 8)))
    assert image.shape[1:] == (720, 3)
    truth = columns(image, canvas.fade(canvas.TRUTH, 0.6))
    assert (truth > 360).mean() > 0.8
    assert len(columns(image, canvas.RUNS[0])) > 200


def test_there_is_a_panel_for_each_sentence():
    two = draw_score_curves(sample_of(), dict(score=torch.rand(2, 16)))
    one = draw_score_curves(sample_of(['a dog runs']), dict(score=torch.rand(1, 1)))
    assert two.shape[0] > one.shape[0]


def test_several_curves_have_several_colors():
    image = draw_score_curves(sample_of(), dict(before=torch.zeros(2, 8), after=torch.ones(2, 8)))
    assert all(len(columns(image, canvas.RUNS[i])) for i in (0, 1))


def test_too_few_curves_are_refused():
    with pytest.raises(ValueError, match='are 1 for 2 sentences'):
        draw_score_curves(sample_of(), dict(one=torch.rand(1, 8)))
