"""The score of a library is that of the head, for moments of any number of videos."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_models import SAMPLES, batch_of, build_tiny
from helpers.tiny_zero_shot import SCORES, build_zero_shot

from mmn_plugin.errors import InputError
from mmn_plugin.models import BaseHead
from mmn_plugin.models.heads.base_head import unit_vectors
from mmn_plugin.structures import MomentGrid, VideoEmbedding


def zero_shot_case(score, **head):
    model = build_zero_shot(score, size=8, **head)
    clips = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(1))
    (video,) = model.encode_videos(clips, SAMPLES[:1])
    return model.head, video, model.encode_sentences(['cat sings', 'dog jumps'])


def mmn_case(name='mmn_charades.py', **head):
    model = build_tiny(name, head=head).eval()
    batch = batch_of(model)
    (video, _) = model.encode_videos(batch['inputs'], batch['data_samples'])
    return model.head, video, model.encode_sentences(['a person opens the door', 'then the box'])


weak_case = partial(mmn_case, 'mscl_charades.py')


class MeanHead(BaseHead):
    """A head that knows nothing of libraries."""

    joint_spaces = ('a', 'contrastive')

    def loss(self, embeddings, sentences, sentence_video, data_samples):
        return {}

    def fuse(self, cosines, video, counts=None):
        return 0.5 + 0.5 * torch.stack(list(cosines.values())).mean(0)


def mean_case():
    grid = MomentGrid(6, [5])
    spaces = {
        s: F.normalize(torch.randn(grid.num_moments, 4), dim=-1) for s in MeanHead.joint_spaces
    }
    sentences = {space: torch.randn(2, 4) for space in spaces}
    return MeanHead(grid, 0.5), VideoEmbedding(spaces, grid.spans(9.0), 'v', 9.0), sentences


def library_scores(head, video, sentences, **settings):
    """Scores (S, M) as a library computes them, and the moments."""
    units, score = head.library_units(video), head.library_score(head.library_defaults | settings)
    queries = unit_vectors(sentences)
    products = {space: queries[space] @ units.embeddings[space].T for space in score.spaces}
    lengths = (units.spans[:, 1] - units.spans[:, 0]) / units.duration * units.length_in_windows
    return score(products, lengths, units.trust), units


CASES = {
    'mmn': lambda: mmn_case(window_score_power=3.0),
    'mean': mean_case,
    **{
        score['type']: lambda score=score: zero_shot_case(score, length_weight=0.2)
        for score in SCORES
    },
}


@pytest.mark.parametrize('case', CASES)
def test_moments_score_as_between_the_windows_of_one_video(case):
    head, video, sentences = CASES[case]()
    video = replace(video, num_windows=3, trust=torch.rand(len(video.spans)))
    found, units = library_scores(head, video, sentences)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), head.score(video, sentences))
    assert torch.equal(units.spans, video.spans)


def test_power_and_weight_of_the_tower_are_the_librarys_own():
    head, video, sentences = mmn_case(score_power=0.5)
    video.embeddings['tower'] = F.normalize(torch.randn(len(video.spans), 5), dim=-1)
    sentences['tower'] = torch.randn(2, 5)
    assert head.library_score(head.library_defaults).spaces == ('contrastive', 'iou')
    head.tower_weight = 1.0
    found, _ = library_scores(head, video, sentences, score_power=4.0, tower_weight=8.0)
    head.score_power, head.tower_weight = 4.0, 8.0
    torch.testing.assert_close(found.float(), head.score(video, sentences))


@pytest.mark.parametrize(('around', 'length'), [(0.5, 0.0), (0.25, 0.04), (0.0, 0.0)])
def test_a_stretch_is_one_vector_whose_product_is_its_score(around, length):
    head, video, sentences = weak_case(
        run_thresholds=None, around_weight=around, length_weight=length
    )
    found, units = library_scores(head, video, sentences)
    spans, expected = head.proposals(video, head.score(video, sentences))
    assert torch.equal(units.spans, spans)
    torch.testing.assert_close(found.float(), expected)


def test_of_a_head_with_run_thresholds_all_stretches_are_searched():
    with_runs, video, sentences = weak_case()
    assert with_runs.run_thresholds
    without = weak_case(run_thresholds=None)[0]
    found, units = library_scores(with_runs, video, sentences)
    assert len(units.spans) == with_runs.grid.num_moments
    torch.testing.assert_close(found, library_scores(without, video, sentences)[0])


@pytest.mark.parametrize('case', [*CASES, 'mscl'])
def test_scores_rise_in_every_product(case):
    head = (CASES | dict(mscl=weak_case))[case]()[0]
    score = head.library_score(head.library_defaults)
    products = {space: torch.rand(500, dtype=torch.float64) * 2.4 - 1.2 for space in score.spaces}
    lengths, trust = torch.rand(500) + 0.01, torch.rand(500)
    before = score(products, lengths, trust)
    for space in score.spaces:
        more = products | {space: products[space] + torch.rand(500)}
        assert (score(more, lengths, trust) >= before).all()


@pytest.mark.parametrize(
    ('settings', 'named'),
    [
        (dict(score_power=-1.0), 'score_power=-1.0'),
        (dict(tower_weight=-0.5), 'tower_weight=-0.5'),
        (dict(tower_weight=2.0), 'the model has no tower'),
    ],
)
def test_settings_that_no_score_can_have_are_refused(settings, named):
    head, video, sentences = mmn_case()
    with pytest.raises(InputError, match=named):
        library_scores(head, video, sentences, **settings)


def test_clips_of_several_windows_are_no_stretches():
    head, video, _ = weak_case()
    longer = replace(video, spans=torch.cat([video.spans, video.spans]))
    with pytest.raises(InputError, match='one window'):
        head.library_units(longer)
