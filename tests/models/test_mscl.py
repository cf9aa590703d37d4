"""The weakly-supervised model: curves, moments, errors, stages."""

import copy
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_corpus import FEATURE_SIZE, NUM_SEGMENTS, VOCABULARY
from helpers.tiny_weak import tiny_weak_model
from mmaction.registry import MODELS
from mmengine.config import Config

from mmn_plugin.apis.long_video import LongVideo
from mmn_plugin.engine import ContrastStageHook
from mmn_plugin.structures import GroundingDataSample, VideoEmbedding, temporal_iou


def build(**head):
    config = Config.fromfile('mmn_plugin::mscl_charades.py')
    config.merge_from_dict(dict(model=tiny_weak_model('unused')))
    config.model.data_preprocessor.tokenizer.vocab = list(VOCABULARY)
    config.model.head.update(head)
    return MODELS.build(config.model)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build()


def sample(video_id, sentences, duration=20.0):
    return GroundingDataSample(
        metainfo=dict(
            video_id=video_id,
            duration=duration,
            sentences=sentences,
            sentence_index=list(range(len(sentences))),
        )
    )


SAMPLES = [
    sample('v', ['a person opens the door', 'then the box']),
    sample('vv', ['the red box'], duration=33.0),
]


def batch_of(model, samples):
    inputs = [
        torch.randn(
            NUM_SEGMENTS, FEATURE_SIZE, generator=torch.Generator().manual_seed(len(s.video_id))
        )
        for s in samples
    ]
    return model.data_preprocessor(dict(inputs=inputs, data_samples=copy.deepcopy(samples)))


def test_predictions_do_not_depend_on_the_other_videos_of_the_batch(model):
    model.eval()
    together = model(**batch_of(model, SAMPLES), mode='predict')
    for index, alone in enumerate(SAMPLES):
        single = model(**batch_of(model, [alone]), mode='predict')[0].pred_instances
        for name in ('moments', 'scores'):
            torch.testing.assert_close(
                together[index].pred_instances[name], single[name], equal_nan=True
            )


def test_moments_are_runs_of_the_curve_ranked_by_contrast(model):
    model.eval()
    batch = batch_of(model, SAMPLES)
    videos = model.encode_videos(batch['inputs'], batch['data_samples'])
    for video, result in zip(videos, model(**batch, mode='predict'), strict=True):
        found, width = result.pred_instances, result.duration / NUM_SEGMENTS
        curves = model.head.score(video, model.encode_sentences(result.sentences)).detach()
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


def test_a_video_encoded_once_gives_the_answers_of_a_prediction(model):
    model.eval()
    batch = batch_of(model, SAMPLES[:1])
    with torch.no_grad():
        (video,) = model.encode_videos(batch['inputs'], batch['data_samples'])
        found = model.head.ground(video, model.encode_sentences(SAMPLES[0].sentences))
        expected = model(**batch, mode='predict')[0].pred_instances
    for name in ('moments', 'scores'):
        torch.testing.assert_close(found[name], expected[name], equal_nan=True)
    assert (found.presence <= 1).all()


def test_clips_of_several_windows_are_refused(model):
    video = VideoEmbedding({}, torch.zeros(7, 2), 'v', 40.0, num_windows=3)
    with pytest.raises(ValueError, match='one window'):
        model.head.rank(video, torch.ones(1, 7))


def test_a_stage_that_has_not_begun_has_no_loss_and_changes_no_score(model):
    model.head.active_stages = 1
    losses = model(**batch_of(model, SAMPLES), mode='loss')
    assert set(losses) == {'loss_vid', 'loss_sent', 'loss_stage1'}
    sum(losses.values()).backward()
    begun, *rest = model.neck.stages
    assert begun.weight.grad.abs().max() > 0
    assert all(stage.weight.grad is None for stage in rest)  # so it stays as it is, zero
    stages = model.neck(model.encode_clips(batch_of(model, SAMPLES)['inputs']))
    torch.testing.assert_close(stages['stage0'], stages['contrastive'])


def test_without_stages_the_video_level_loss_is_all(model):
    alone = build(windows=())
    assert set(alone(**batch_of(alone, SAMPLES), mode='loss')) == {'loss_vid', 'loss_sent'}


def test_one_video_alone_trains_its_stages_and_nothing_else(model):
    losses = model(**batch_of(model, SAMPLES[:1]), mode='loss')
    assert losses['loss_vid'] == losses['loss_sent'] == 0
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_videos_shorter_than_the_coarsest_window_train(model):
    model = build(windows=(64, 16, 1))
    losses = model(**batch_of(model, SAMPLES), mode='loss')
    assert losses['loss_stage1'] == losses['loss_stage2'] == 0 < losses['loss_stage3']
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_two_videos_with_the_same_sentence_train(model):
    model.head.negatives.exclude_same_text = True
    twins = [sample('v', ['the red box']), sample('vv', ['The red box.'])]
    losses = model(**batch_of(model, twins), mode='loss')
    assert losses['loss_vid'] == losses['loss_sent'] == 0


def test_stages_begin_at_their_epochs():
    hook, head = ContrastStageHook([2, 3, 3]), SimpleNamespace(windows=(4, 2, 1))
    seen = []
    for epoch in range(4):
        hook.before_train_epoch(SimpleNamespace(epoch=epoch, model=SimpleNamespace(head=head)))
        seen.append(head.active_stages)
    assert seen == [0, 1, 3, 3]
    with pytest.raises(ValueError, match=r'from_epochs=\[2, 3, 3\] has 3 entries'):
        hook.before_train(
            SimpleNamespace(model=SimpleNamespace(head=SimpleNamespace(windows=(4, 2))))
        )


@pytest.mark.parametrize('epochs', [[0, 1], [3, 2]])
def test_epochs_that_fall_are_refused(epochs):
    with pytest.raises(ValueError, match='no stage begins before'):
        ContrastStageHook(epochs)


@pytest.mark.parametrize(
    ('head', 'message'),
    [
        (dict(windows=(2, 4)), 'coarse to fine'),
        (dict(windows=(0,)), '1 clip or more'),
        (dict(run_thresholds=()), 'run_thresholds'),
        (dict(run_thresholds=(1.0,)), 'between 0 and 1'),
        (dict(threshold_halving=0.0), 'above 0'),
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
    (video,) = model.head.split({}, [sample('v', ['the red box'])])
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


@pytest.mark.parametrize('name', ['charades', 'activitynet', 'shapes'])
def test_published_configs_are_weak_and_look_at_videos_whole(name):
    config = Config.fromfile(f'mmn_plugin::mscl_{name}.py')
    assert config.train_dataloader.dataset.weak is True
    assert not any('weak' in config[f'{split}_dataloader'].dataset for split in ('val', 'test'))
    assert LongVideo(**config.long_video).window_of(1e5) is None
    assert len(config.default_hooks.stages.from_epochs) == len(config.model.head.windows)


def test_features_that_do_not_fit_are_named(model):
    with pytest.raises(ValueError, match=r'vv have size 5.*in_channels is 6'):
        model.encode_videos(torch.randn(1, NUM_SEGMENTS, 5), [SAMPLES[1]])
    with pytest.raises(ValueError, match=r'rows of video vv give 4 clips.*num_clips is 16'):
        model.encode_videos(torch.randn(1, 4, FEATURE_SIZE), [SAMPLES[1]])
