"""The weakly-supervised model: curves, moments, errors, stages."""

from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_corpus import NUM_SEGMENTS
from helpers.tiny_models import (
    SAMPLES,
    assert_batch_plays_no_role,
    batch_of,
    build_tiny,
    sample_of,
)
from mmaction.registry import MODELS
from mmengine.config import Config

from mmn_plugin.apis.long_video import LongVideo
from mmn_plugin.engine import ContrastStageHook
from mmn_plugin.errors import InputError
from mmn_plugin.structures import VideoEmbedding, temporal_iou, true_windows


def build(**head):
    return build_tiny('mscl_charades.py', head=head)


@pytest.fixture
def model():
    return build()


def assert_trains(losses, model):
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_sentence_that_is_known_not_to_occur_is_refused_in_training(model):
    sample = sample_of('v', ['the box', 'the red box'])
    sample.gt_instances = true_windows([[(1, 5), (7, 9)], []])
    with pytest.raises(InputError, match=r"'v', sentence 'the red box' does not occur.*weak=True"):
        model(**batch_of(model, [sample]), mode='loss')


def test_moments_are_runs_of_the_curve_ranked_by_contrast(model):
    assert_batch_plays_no_role(model)
    batch = batch_of(model)
    videos = model.encode_videos(batch['inputs'], batch['data_samples'])
    for video, result in zip(videos, model(**batch, mode='predict'), strict=True):
        found, width = result.pred_instances, result.duration / NUM_SEGMENTS
        sentences = model.encode_sentences(result.sentences)
        again = model.head.ground(video, sentences)  # encoded once, asked again
        torch.testing.assert_close(again.moments, found.moments, equal_nan=True)
        assert (again.presence <= 1).all()
        curves = model.head.score(video, sentences).detach()
        assert curves.shape == (len(result.sentences), NUM_SEGMENTS)
        assert ((curves >= 0) & (curves <= 1)).all()
        for curve, moments, scores in zip(curves, found.moments, found.scores, strict=True):
            kept = scores[~scores.isnan()]
            assert len(kept)
            assert torch.equal(kept, kept.sort(descending=True).values)
            first, last = (moments[0] / width).round().int().tolist()
            inside = torch.zeros(NUM_SEGMENTS, dtype=torch.bool)
            inside[first:last] = True
            contrast = curve[inside].mean() - curve[~inside].mean()
            assert scores[0].item() == pytest.approx(0.5 + 0.5 * contrast.item(), abs=1e-5)
            for edge in (first - 1, last):
                assert not 0 <= edge < NUM_SEGMENTS or curve[edge] < curve[inside].min()


def test_clips_of_several_windows_are_refused(model):
    video = VideoEmbedding({}, torch.zeros(7, 2), 'v', 40.0, num_windows=3)
    with pytest.raises(ValueError, match='one window'):
        model.head.rank(video, torch.ones(1, 7))


def test_a_stage_that_has_not_begun_has_no_loss_and_changes_no_score(model):
    model.head.active_stages = 1
    losses = model(**batch_of(model), mode='loss')
    assert set(losses) == {'loss_vid', 'loss_sent', 'loss_stage1'}
    sum(losses.values()).backward()
    begun, *rest = model.neck.stages
    assert begun.weight.grad.abs().max() > 0
    assert all(stage.weight.grad is None for stage in rest)  # so it stays as it is, zero
    stages = model.neck(model.encode_clips(batch_of(model)['inputs']))
    torch.testing.assert_close(stages['stage0'], stages['contrastive'])
    alone = build(windows=())
    assert set(alone(**batch_of(alone), mode='loss')) == {'loss_vid', 'loss_sent'}


def test_what_gives_nothing_to_learn_trains_all_the_same(model):
    one_video = model(**batch_of(model, SAMPLES[:1]), mode='loss')
    assert one_video['loss_vid'] == one_video['loss_sent'] == 0
    assert_trains(one_video, model)
    model.head.negatives.exclude_same_text = True
    twins = [sample_of('v', ['the red box']), sample_of('vv', ['The red box.'])]
    losses = model(**batch_of(model, twins), mode='loss')
    assert losses['loss_vid'] == losses['loss_sent'] == 0
    short = build(windows=(64, 16, 1))  # videos shorter than the coarsest window
    losses = short(**batch_of(short), mode='loss')
    assert losses['loss_stage1'] == losses['loss_stage2'] == 0 < losses['loss_stage3']
    assert_trains(losses, short)


def test_stages_begin_at_their_epochs():
    hook, head = ContrastStageHook([2, 3, 3]), SimpleNamespace(windows=(4, 2, 1))
    runner = SimpleNamespace(model=SimpleNamespace(head=head))
    hook.before_train(runner)
    seen = []
    for runner.epoch in range(4):
        hook.before_train_epoch(runner)
        seen.append(head.active_stages)
    assert seen == [0, 1, 3, 3]
    head.windows = (4, 2)
    with pytest.raises(ValueError, match=r'from_epochs=\[2, 3, 3\] has 3 entries'):
        hook.before_train(runner)
    for epochs in ([0, 1], [3, 2]):
        with pytest.raises(ValueError, match='no stage begins before'):
            ContrastStageHook(epochs)


@pytest.mark.parametrize(
    ('head', 'message'),
    [
        (dict(windows=(2, 4)), r'windows=\[2, 4\]'),
        (dict(windows=(0,)), r'windows=\[0\]'),
        (dict(run_thresholds=()), r'run_thresholds=\[\]'),
        (dict(run_thresholds=(1.0,)), r'run_thresholds=\[1.0\]'),
        (dict(threshold_halving=0.0), 'threshold_halving=0.0'),
    ],
)
def test_settings_that_make_no_sense_are_named(head, message):
    with pytest.raises(ValueError, match=message):
        build(**head)


def test_answers_after_the_first_overlap_it(model):
    """As the configs have it: several thresholds, so that one peak has several answers."""
    curve = torch.tensor(
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.0, 0.95, 0.8, 0.6, 0.5, 0.4, 0.2, 0.1, 0.1]
    )
    (video,) = model.head.split({}, [sample_of('v', ['the red box'])])
    ranked = model.head.rank(video, curve[None])
    moments, scores = ranked.moments[0], ranked.scores[0]
    threshold = 0.1 + model.head.run_thresholds[0] * 0.9
    first = [i for i, score in enumerate(curve.tolist()) if score >= threshold]
    clip = video.duration / len(curve)
    assert moments[0].tolist() == pytest.approx([first[0] * clip, (first[-1] + 1) * clip])
    count = int(moments.isfinite().all(1).sum())
    assert count >= 3
    overlaps = temporal_iou(moments[:1], moments[1:count])
    assert ((overlaps > 0) & (overlaps <= model.head.nms_threshold)).all()
    assert scores[:count].diff().max() <= 0


def test_without_thresholds_every_stretch_is_a_candidate():
    model = build(run_thresholds=None, length_weight=0.01)
    curve = torch.full((1, 16), 0.3)
    curve[0, 4:10] = 0.8
    (video,) = model.head.split({}, [sample_of('v', ['the red box'])])
    clip = video.duration / 16
    _, scores = model.head.proposals(video, curve)
    assert ((scores > 0) & (scores <= 1)).all()
    ranked = model.head.rank(video, curve)
    assert ranked.moments[0, 0].tolist() == pytest.approx([4 * clip, 10 * clip])
    assert ranked.moments[0].isfinite().all()
    assert_trains(model(**batch_of(model), mode='loss'), model)


def test_training_can_begin_with_the_space_of_features_and_language_model():
    size = 8
    neck = MODELS.build(
        dict(
            type='FrameNeck',
            channels=size,
            embed_channels=size,
            num_stages=2,
            num_layers=0,
            identity=True,
        )
    )
    clips = MODELS.build(dict(type='ClipMeans', in_channels=size, kernel_size=2, stride=2))
    features = torch.randn(3, 8, size)
    means = torch.nn.functional.normalize(features.view(3, 4, 2, size).mean(2), dim=-1)
    torch.testing.assert_close(neck(clips(features))['contrastive'], means)
    with pytest.raises(ValueError, match=r'neck\.identity=True: a space of 8 .* to 8, or'):
        MODELS.build(
            dict(type='FrameNeck', channels=8, embed_channels=4, num_stages=1, identity=True)
        )


@pytest.mark.parametrize('name', ['charades', 'activitynet', 'shapes', 'captions'])
def test_published_configs_are_weak_and_look_at_videos_whole(name):
    config = Config.fromfile(f'mmn_plugin::mscl_{name}.py')
    assert config.train_dataloader.dataset.weak is True
    assert not any('weak' in config[f'{split}_dataloader'].dataset for split in ('val', 'test'))
    assert LongVideo(**config.get('long_video', {})).window_of(1e5) is None
    assert len(config.default_hooks.stages.from_epochs) == len(config.model.head.windows)
