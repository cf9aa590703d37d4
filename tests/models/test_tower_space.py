"""MMN with the tower's own space: a third cosine that no training touches."""

import copy

import pytest
import torch
from helpers.stub_tower import StubTower
from helpers.tiny_corpus import FEATURE_SIZE, write_config, write_corpus
from helpers.tiny_models import SAMPLES, assert_batch_plays_no_role, batch_of, build_tiny
from helpers.tiny_zero_shot import mark_features
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import Runner

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.engine import CheckpointIdentity
from mmn_plugin.models.necks.tower_pool import moment_means
from mmn_plugin.structures import MomentGrid

SENTENCES = ['a person opens the door', 'the red box']


def build(tower=None, **head):
    return build_tiny(head=head, tower=dict(type='StubTower', **tower or {})).eval()


def scores_of(model, samples=SAMPLES[:1]):
    batch = batch_of(model, samples)
    videos = model.encode_videos(batch['inputs'], batch['data_samples'])
    sentences = model.encode_sentences(samples[0].sentences)
    return videos[0], model.head.score(videos[0], sentences), sentences


@pytest.mark.parametrize('weight', [0.5, 8.0])
def test_the_score_is_that_without_the_tower_times_a_factor_of_its_cosine(weight):
    _, plain, _ = scores_of(build_tiny().eval())
    model = build(tower_weight=weight)
    video, scores, sentences = scores_of(model)
    rows = batch_of(model, SAMPLES[:1])['inputs'][0].double()
    texts = StubTower().encode_sentences(SAMPLES[0].sentences).double()
    for place, (first, last) in enumerate(zip(model.grid.starts, model.grid.ends, strict=True)):
        inside = rows[2 * first : 2 * last + 2].mean(0)  # two rows make a clip
        cosine = texts @ inside / inside.norm()
        expected = plain[:, place] * (weight * (cosine - 1)).exp()
        torch.testing.assert_close(scores[:, place].double(), expected, rtol=1e-5, atol=1e-7)
    by_log = plain.log() + weight * model.head.cosines(video, sentences)['tower']
    assert torch.equal(scores.argsort(1), by_log.argsort(1))
    assert ((scores >= 0) & (scores <= 1)).all()


def test_without_a_weight_scores_are_equal_to_the_bit_and_the_tower_is_not_asked():
    _, plain, _ = scores_of(build_tiny().eval())
    model = build(tower_weight=0.0)
    video, scores, sentences = scores_of(model)
    assert torch.equal(scores, plain)
    assert set(video.embeddings) == set(sentences) == {'iou', 'contrastive'}
    model(**batch_of(model), mode='predict')
    assert model.tower.asked == []


def test_windows_may_have_a_weight_of_their_own():
    model = build(tower_weight=0.0, window_tower_weight=2.0)
    video, scores, sentences = scores_of(model)
    assert torch.equal(scores, scores_of(build_tiny().eval())[1])
    video.num_windows = 3
    video.trust = None
    factor = (2 * (model.head.cosines(video, sentences)['tower'] - 1)).exp()
    torch.testing.assert_close(model.head.score(video, sentences), scores * factor)
    for name in ('tower_weight', 'window_tower_weight'):
        with pytest.raises(ValueError, match=rf'{name}=-1'):
            build(**{name: -1})
    with pytest.raises(ValueError, match=r'set model\.tower'):
        build_tiny(head=dict(tower_weight=1.0))


def test_several_videos_of_a_batch_are_ranked_as_each_alone():
    assert_batch_plays_no_role(build(tower_weight=3.0))


def test_clips_are_averaged_whatever_the_number_of_rows():
    grid = MomentGrid(4, [3])
    rows = torch.randn(1, 12, 5)
    means = moment_means(rows, grid)
    for place, (first, last) in enumerate(zip(grid.starts, grid.ends, strict=True)):
        torch.testing.assert_close(means[0, place], rows[0, 3 * first : 3 * last + 3].mean(0))


def test_no_copy_checkpoint_or_optimizer_holds_the_tower():
    model, plain = build(tower_weight=3.0), build_tiny()
    assert model.state_dict().keys() == plain.state_dict().keys()
    averaged = ExponentialMovingAverage(model).module
    for other in (averaged, copy.deepcopy(model)):
        assert other.tower is model.tower
        assert torch.equal(scores_of(other)[1], scores_of(model)[1])


def test_the_tower_goes_where_the_model_goes():
    model = build(tower_weight=3.0)
    model.tower.device = 'meta'
    model.to('cpu')
    assert model.tower.device == 'cpu'


def test_another_tower_than_the_checkpoints_is_refused_at_its_first_use():
    model = build(tower_weight=3.0)
    meta = CheckpointIdentity.collect(model).entries()
    assert meta['tower'] == StubTower().fingerprint
    checkpoint = dict(meta=meta, state_dict=model.state_dict())
    CheckpointIdentity.check(model, checkpoint)
    model.encode_sentences(SENTENCES)
    other = build(dict(seed=1), tower_weight=3.0)
    CheckpointIdentity.check(other, checkpoint)
    with pytest.raises(ValueError, match=r"checkpoint's tower and model\.tower .*seed 0, here 1"):
        other.encode_sentences(SENTENCES)
    unused = build(dict(seed=1))
    CheckpointIdentity.check(unused, checkpoint)
    unused.encode_sentences(SENTENCES)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Config and checkpoint of a training on the tower's features, which say whose they are."""
    folder = tmp_path_factory.mktemp('tower')
    corpus = write_corpus(folder / 'corpus')
    mark_features(corpus)
    extra = (
        "model['tower'] = dict(type='StubTower')\nmodel['head'] = dict(tower_weight=3.0)\n"
        'long_video = dict(window=12.0, longest=18.0)\n'
    )
    path = write_config(folder / 'tiny.py', corpus, epochs=1, extra=extra)
    config = Config.fromfile(path)
    config.work_dir, config.experiment_name = str(folder / 'work'), 'tower_train'
    Runner.from_cfg(config).train()
    return config, folder / 'work' / 'epoch_1.pth'


def test_features_of_another_tower_are_refused_in_training_test_and_inference(trained):
    config, checkpoint = copy.deepcopy(trained[0]), trained[1]
    assert torch.load(checkpoint, weights_only=True)['meta']['tower'] == StubTower().fingerprint
    entry = f'{config.test_dataloader.dataset.data_root}features.h5::test_0'
    GroundingInferencer(config, checkpoint)(entry, SENTENCES)
    config.model.tower.seed = 1
    refused = r'tower and .* do not belong together.*seed'
    with pytest.raises(ValueError, match=refused):
        GroundingInferencer(config, checkpoint)(entry, SENTENCES)
    config.experiment_name = 'tower_other'
    with pytest.raises(ValueError, match=refused):
        Runner.from_cfg(config).train()


def test_a_saved_folder_names_the_tower_and_answers_the_same(trained, tmp_path):
    inferencer = GroundingInferencer(*trained)
    inferencer.save_pretrained(tmp_path / 'model')
    again = GroundingInferencer.from_pretrained(tmp_path / 'model')
    assert again.meta['tower'] == StubTower().fingerprint
    assert 'TODO' in (tmp_path / 'model' / 'README.md').read_text()
    features = torch.randn(20, FEATURE_SIZE, generator=torch.Generator().manual_seed(0))
    assert again(features, SENTENCES, 10.0) == inferencer(features, SENTENCES, 10.0)


def test_long_videos_are_scored_in_windows(trained):
    inferencer = GroundingInferencer(*trained)
    features = torch.randn(120, FEATURE_SIZE, generator=torch.Generator().manual_seed(0))
    encoded = inferencer.encode(features, duration=60.0)
    assert encoded.num_windows > 1
    assert encoded.embeddings['tower'].shape == (len(encoded.spans), FEATURE_SIZE)
    scores, head = inferencer.score_moments(encoded, SENTENCES), inferencer.model.head
    with torch.inference_mode():
        cosines = head.cosines(encoded, inferencer.model.encode_sentences(SENTENCES))
    head.tower_weight = 0.0
    without = head.fuse(cosines, encoded) * encoded.trust
    torch.testing.assert_close(scores, without * (3 * (cosines['tower'] - 1)).exp())
