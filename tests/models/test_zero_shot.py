"""Grounding by a tower alone: its scores, their map, presence, and videos of any length."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_corpus import FEATURE_SIZE
from helpers.tiny_models import assert_batch_plays_no_role, batch_of, sample_of
from helpers.tiny_zero_shot import SCORES, UNRELATED, build_zero_shot, video_showing

from mmn_plugin.apis.long_video import LongVideo, VideoEncoder
from mmn_plugin.apis.video_input import VideoFeatures
from mmn_plugin.datasets import PackGroundingInputs, PoolClipFeatures
from mmn_plugin.models.heads.zero_shot_head import UNRELATED as OWN_SENTENCES
from mmn_plugin.models.heads.zero_shot_head import read_sentences
from mmn_plugin.structures import MomentGrid, VideoEmbedding

SENTENCE = 'a person opens the door'
BY_TYPE = pytest.mark.parametrize('score', SCORES, ids=lambda score: score['type'])


def encoded(model, features, duration=24.0):
    (video,) = model.encode_videos(features[None], [sample_of('v', [SENTENCE], duration)])
    return video


def cosine(sentence, rows):
    """Cosine of a vector with the mean of rows, in float64."""
    mean = np.mean(rows, axis=0)
    return float(sentence @ mean / np.linalg.norm(mean))


def stretch(clips, begin, end):
    """Mean over an interval of time in clips, in 360ths of a clip."""
    ticks = np.arange(round(begin * 360), round(end * 360)) // 360
    return clips[ticks]


def by_loops(score, clips, sentence, first, last, surroundings):
    """The score of one moment as its definition says it, in float64."""
    begin, end, count = first, last + 1, len(clips)
    inside, length = cosine(sentence, clips[begin:end]), last + 1 - first
    if score['type'] == 'mean':
        return inside
    if score['type'] == 'contrast':
        wide = count if surroundings == 'rest' else length
        near = [n for n in range(count) if begin - wide <= n < end + wide and not begin <= n < end]
        outside = cosine(sentence, clips[near]) if near else inside
        return inside - score['weight'] * outside
    edges = [begin + k * length / 3 for k in range(4)]
    thirds = [cosine(sentence, stretch(clips, *edges[k : k + 2])) for k in range(3)]
    before = stretch(clips, max(begin - length / 3, 0), begin)
    rise = thirds[0] - (cosine(sentence, before) if len(before) else thirds[0])
    return score['rise'] * rise + score['steadiness'] * min(thirds) + score['mean'] * inside


@BY_TYPE
@pytest.mark.parametrize('surroundings', ['neighborhood', 'rest'])
def test_scores_are_those_of_plain_loops_in_float64(score, surroundings):
    settings = dict(scale=7.0, center=0.2, length_weight=0.1)
    model = build_zero_shot(score, neck=dict(surroundings=surroundings), **settings)
    features = F.normalize(torch.randn(16, FEATURE_SIZE, generator=torch.manual_seed(1)), dim=-1)
    scores = model.head.score(encoded(model, features), model.encode_sentences([SENTENCE]))[0]
    sentence = model.tower.encode_sentences([SENTENCE])[0].double().numpy()
    clips = features.double().numpy().reshape(8, 2, -1).mean(1)
    for place, (first, last) in enumerate(
        zip(model.grid.starts.tolist(), model.grid.ends.tolist(), strict=True)
    ):
        value = by_loops(score, clips, sentence, first, last, surroundings)
        value += 0.1 * np.log((last + 1 - first) / 8)
        expected = 1 / (1 + np.exp(-7.0 * (value - 0.2)))
        assert scores[place].item() == pytest.approx(expected, abs=2e-6)


@BY_TYPE
def test_every_score_lies_in_0_to_1_and_falls_with_no_cosine(score):
    head = build_zero_shot(score, scale=30.0, center=0.1, length_weight=-0.3).head
    spans = head.units.spans(20.0)
    video = VideoEmbedding({}, spans, 'v', 20.0)
    generator = torch.Generator().manual_seed(0)
    cosines = {
        space: 2 * torch.rand(50, len(spans), generator=generator) - 1
        for space in head.tower_spaces
    }
    scores, risen = head.fuse(cosines, video), {}
    assert ((scores > 0) & (scores <= 1)).all()
    for space in cosines:
        risen[space] = head.fuse({**cosines, space: (cosines[space] + 0.2).clamp(max=1)}, video)
        assert (risen[space] >= scores).all()
        assert (risen[space] > scores).any()


@BY_TYPE
def test_a_sentence_that_is_shown_twice_gives_both_moments_first(score):
    model = build_zero_shot(score, scale=5.0, size=64)
    features = video_showing(SENTENCE, 4, 6, size=64)
    features[12:14] = features[4:6]
    found = model.head.ground(encoded(model, features), model.encode_sentences([SENTENCE]))
    best = found.moments[0, :2].sort(0).values
    torch.testing.assert_close(best[:, 0], torch.tensor([6.0, 18.0]))
    scores = found.scores[0][~found.scores[0].isnan()]
    assert len(scores) > 1
    assert torch.equal(scores, scores.sort(descending=True).values)


def test_unrelated_sentences_without_a_word_that_the_tower_knows_are_left_out():
    model = build_zero_shot(unrelated=['...', *UNRELATED])
    video = encoded(model, video_showing(SENTENCE, 4, 10))
    model.head.presence(video, model.encode_sentences([SENTENCE]))
    assert len(video.unrelated) == len(UNRELATED)
    model, video.unrelated = build_zero_shot(unrelated=['...']), None
    with pytest.raises(
        ValueError, match=r'knows no word of the sentences of model\.head\.unrelated'
    ):
        model.head.presence(video, model.encode_sentences([SENTENCE]))


@BY_TYPE
def test_presence_of_what_is_shown_is_above_that_of_other_sentences(score):
    model = build_zero_shot(score, size=64)
    video = encoded(model, video_showing(SENTENCE, 4, 10, size=64))
    others = ['red box', 'blue closes slowly', 'then']
    presence = model.head.presence(video, model.encode_sentences([SENTENCE, *others]))
    assert presence[0] > 0.9
    assert presence[1:].max() < presence[0]
    assert video.unrelated.shape == (len(UNRELATED),)
    best = model.head.score(video, model.encode_sentences(UNRELATED)).amax(1)
    torch.testing.assert_close(video.unrelated, best.sort().values)
    asked = len(model.tower.asked)
    again = model.head.ground(video, model.encode_sentences([SENTENCE]))
    torch.testing.assert_close(again.presence[0], presence[0])
    assert len(model.tower.asked) == asked + 1
    for place, sentence in enumerate(UNRELATED):  # a percentile: one K-th apart, in their order
        rank = int((best < best[place]).sum())
        own = model.head.presence(video, model.encode_sentences([sentence]))
        expected = (rank + best[place]) / (len(UNRELATED) + 1)
        torch.testing.assert_close(own[0], expected, atol=0.11, rtol=0)


def test_longer_moments_gain_by_a_weight_above_zero():
    means = []
    for weight in (-0.5, 0.0, 0.5):
        model = build_zero_shot(length_weight=weight)
        scores = model.head.score(
            encoded(model, video_showing(SENTENCE, 4, 10)), model.encode_sentences([SENTENCE])
        )
        best = model.head.units.spans(24.0)[scores[0].topk(5).indices]
        means.append((best[:, 1] - best[:, 0]).mean().item())
    assert means[0] < means[1] < means[2]


@BY_TYPE
def test_a_video_is_scored_as_alone_whatever_else_is_in_the_batch(score):
    assert_batch_plays_no_role(build_zero_shot(score, length_weight=0.2))


@BY_TYPE
def test_a_long_video_is_scored_in_windows(score):
    model = build_zero_shot(score, length_weight=0.1, size=64)
    rows = video_showing(SENTENCE, 150, 160, rows=240, size=64).numpy()
    pool, pack = PoolClipFeatures(16), PackGroundingInputs()
    encoder = VideoEncoder(
        model, lambda data: pack(pool(data)), 'cpu', LongVideo(window=12.0), None, 'none'
    )
    (video,) = encoder([VideoFeatures('v', rows, 120.0)])
    assert video.num_windows > 20
    with torch.inference_mode():
        found = model.head.ground(
            video, model.encode_sentences([SENTENCE, 'red box', 'blue box', 'then'])
        )
    start, end = found.moments[0, 0].tolist()
    assert 72 <= start <= 78
    assert 77 <= end <= 83
    assert found.presence[0] > max(0.9, found.presence[1:].max())
    assert found.presence[1:].mean() < 0.9


def test_the_scale_may_be_the_towers_own_and_no_score_is_zero():
    model = build_zero_shot(scale='tower')
    assert model.head.scale_and_center() == (10.0, 0.2)
    steep = build_zero_shot(scale=1e4)
    scores = steep.head.score(
        encoded(steep, video_showing(SENTENCE, 4, 10)), steep.encode_sentences([SENTENCE])
    )
    assert (scores > 0).all()
    for wrong, message in ((None, 'no logit scale'), (0.0, 'the logit scale 0: give a number')):
        model.tower.logit_scale = wrong
        with pytest.raises(ValueError, match=message):
            model(**batch_of(model), mode='predict')


def test_unrelated_sentences_come_from_the_package_a_list_or_a_file(tmp_path):
    own = read_sentences(None)
    assert len(own) == len(set(own)) == 200
    assert OWN_SENTENCES.is_file()
    path = tmp_path / 'unrelated.txt'
    path.write_text('a cat sings\n\na dog eats\n')
    assert read_sentences(str(path)) == ['a cat sings', 'a dog eats']
    with pytest.raises(FileNotFoundError, match='unrelated'):
        read_sentences(str(tmp_path / 'absent.txt'))
    with pytest.raises(ValueError, match='holds no sentence'):
        read_sentences([' '])


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(score=dict(type='best')), r"type='best'; it must be one of \['mean', 'contrast'"),
        (dict(score=dict(type='mean', weight=1)), r"weight=1; 'mean' takes .* named \[\]"),
        (dict(score=dict(type='rise', rise=-1)), 'rise=-1'),
        (dict(scale=0), 'scale=0'),
        (dict(neck=dict(surroundings='all')), "surroundings='all'"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build_zero_shot(**settings)


def test_features_of_another_size_and_too_few_rows_are_refused():
    model = build_zero_shot(size=FEATURE_SIZE + 1)
    with pytest.raises(ValueError, match=r'size 6 \(video .*\) are not of the tower .* size 7'):
        model(**batch_of(model), mode='predict')
    with pytest.raises(ValueError, match=r'4 feature rows give no 8 clips'):
        model.encode_videos(torch.zeros(1, 4, 6), [sample_of('v', ['x'])])


def test_there_is_nothing_to_train_and_nothing_to_save():
    model = build_zero_shot()
    assert not model.needs_weights
    assert not model.state_dict()
    assert not [*model.parameters()]
    with pytest.raises(ValueError, match='no weights to train'):
        model(**batch_of(model), mode='loss')


def test_all_moments_of_any_grid_have_every_space():
    for grid in (MomentGrid(1, []), MomentGrid(5, [4]), MomentGrid(16, [7, 2])):
        model = build_zero_shot(SCORES[2])
        neck = type(model.neck)(grid, ('tower', 'around', 'before', 'first', 'middle', 'last'))
        spaces = neck(torch.ones(1, 3, grid.num_clips))
        for name, values in spaces.items():
            sign = -1 if name in ('around', 'before') else 1
            torch.testing.assert_close(values, torch.full_like(values, sign))
