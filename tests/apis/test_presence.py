"""Whether a sentence occurs at all."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.tiny_corpus import FEATURE_SIZE
from helpers.tiny_grounder import write_grounder
from mmaction.registry import DATASETS
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmn_plugin.apis import GroundingInferencer, presence
from mmn_plugin.apis.presence import calibrate_presence, tail_of, threshold_at


@pytest.fixture(scope='module')
def grounder(tmp_path_factory):
    return write_grounder(tmp_path_factory.mktemp('presence'), in_channels=FEATURE_SIZE)


@pytest.fixture(scope='module')
def dataset(grounder):
    return DATASETS.build(Config.fromfile(grounder.config).val_dataloader.dataset)


@pytest.fixture
def inferencer(grounder):
    return GroundingInferencer(grounder.config, grounder.checkpoint, 'cpu')


def test_the_threshold_keeps_the_share_of_present_sentences(inferencer, dataset, tmp_path):
    found = calibrate_presence(inferencer, dataset, keep=0.7)
    absent = presence.foreign_sentences(dataset)
    present, others = presence.measure_presence(inferencer, dataset, absent)
    assert (present >= found['threshold']).mean() == pytest.approx(0.7, abs=1 / len(present))
    assert (present >= found['threshold']).mean() >= 0.7 - 1e-9
    assert (others >= found['threshold']).mean() == found['absent_kept']
    assert found['present'] == len(present)
    inferencer.save_pretrained(tmp_path)
    again = GroundingInferencer.from_pretrained(tmp_path, device='cpu')
    assert again.presence_threshold == inferencer.presence_threshold == found['threshold']
    assert again.meta['presence'] == found
    with pytest.raises(ValueError, match=r'keep=1\.0'):
        calibrate_presence(inferencer, dataset, 1.0)


def test_sentences_annotated_as_absent_count_as_absent(inferencer, dataset):
    packed = dataset[0]
    none = {packed['data_samples'].video_id: []}
    present, others = presence.measure_presence(inferencer, [packed], none)
    assert len(others) == 0
    sample = packed['data_samples'].clone()
    count = len(sample.sentences)
    truth = InstanceData(moments=sample.gt_instances.moments[1:])
    truth.sentence = torch.arange(1, count)  # nothing of the first one
    sample.gt_instances = truth
    packed = dict(packed, data_samples=sample)
    rest, absent = presence.measure_presence(inferencer, [packed], none)
    assert np.allclose([*absent, *rest], present)
    assert len(absent) == 1


def test_absent_sentences_are_those_of_other_videos(inferencer, dataset):
    chosen = presence.foreign_sentences(dataset, per_video=4)
    assert chosen == presence.foreign_sentences(dataset, per_video=4)
    assert chosen != presence.foreign_sentences(dataset, per_video=4, seed=1)
    samples = [packed['data_samples'] for packed in dataset]
    for sample in samples:
        assert 1 <= len(chosen[sample.video_id]) <= 4
        assert not set(chosen[sample.video_id]) & set(sample.sentences)
    absent = {sample.video_id: ['red box'] for sample in samples}
    present, others = presence.measure_presence(inferencer, dataset, absent)
    encoded = inferencer.video_encoder.encode_pooled(dataset[0]['inputs'], samples[0])
    asked = [*samples[0].sentences, 'red box']
    expected = inferencer.predict(encoded, asked).pred_instances.presence
    assert np.allclose([*present[: len(asked) - 1], others[0]], expected)
    assert len(others) == len(dataset)
    assert (np.abs(present) <= 1 + 1e-6).all()


def bounded(rng, power, size):
    """Values below 1, of which a share of (1 - x)^power lies above x."""
    return 1 - rng.random(size) ** (1 / power)


@pytest.mark.parametrize('power', [1.5, 2.5, 8.0])
@pytest.mark.parametrize('length', [4, 10, 100])
def test_the_share_of_absent_sentences_that_pass_is_the_same_in_long_videos(power, length):
    rng = np.random.default_rng(0)
    one = bounded(rng, power, 4000)
    threshold = float(np.quantile(one, 0.97))
    calibrated = dict(threshold=threshold, tail=tail_of(one), absent_kept=0.03)
    long = bounded(rng, power, (8000, length)).max(axis=1)
    assert (long >= threshold).mean() > 3 * 0.03
    assert (long >= threshold_at(calibrated, length)).mean() == pytest.approx(0.03, abs=0.01)
    assert threshold_at(calibrated, 1) == threshold < threshold_at(calibrated, 1.1)
    assert threshold_at(calibrated, 1e9) < 1


def test_the_tail_hardly_depends_on_one_percent_that_occur_unannotated():
    rng = np.random.default_rng(0)
    absent = bounded(rng, 2.5, 4000)
    some_occur = np.concatenate([absent, np.full(40, 0.99)])
    assert tail_of(absent) == pytest.approx(1 / 2.5, rel=0.1)
    assert tail_of(some_occur) == pytest.approx(1 / 2.5, rel=0.2)
    assert tail_of([0.3] * 9) == 0.0


@pytest.mark.parametrize('overlap', [0.0, 0.75])
def test_a_long_video_has_a_higher_threshold(grounder, dataset, overlap):
    inferencer = GroundingInferencer(
        grounder.config, grounder.checkpoint, 'cpu', long_video=dict(window=10.0, overlap=overlap)
    )
    found = calibrate_presence(inferencer, dataset, keep=0.5)
    features = np.random.default_rng(0).random((60, FEATURE_SIZE), dtype=np.float32)
    short, long = (
        inferencer.predict(inferencer.encode(features[:rows], seconds), 'red box')
        for rows, seconds in ((12, 12.0), (60, 60.0))
    )
    assert inferencer.threshold_of(short) == found['threshold']
    assert inferencer.threshold_of(long) == threshold_at(found, 6) > found['threshold']
    presence = long.pred_instances.presence.item()
    for tail, present in ((0.0, True), (0.5, False)):
        # between the threshold of one window and that of six
        inferencer.meta['presence'] = dict(
            found, threshold=presence - 1e-6, tail=tail, absent_kept=0.1
        )
        for answer in (
            inferencer(features, 'red box', 60.0)[0],
            inferencer.ground(inferencer.encode(features, 60.0), 'red box')[0],
        ):
            assert answer['present'] == present


def test_a_threshold_of_ones_own_is_that_of_every_video(grounder, inferencer, dataset, tmp_path):
    calibrate_presence(inferencer, dataset)
    inferencer.save_pretrained(tmp_path / 'a')
    own = dict(device='cpu', presence_threshold=0.3)
    given = GroundingInferencer.from_pretrained(tmp_path / 'a', **own)
    given.save_pretrained(tmp_path / 'b')
    again = GroundingInferencer.from_pretrained(tmp_path / 'b', device='cpu')
    long = SimpleNamespace(length_in_windows=9.0)
    assert given.threshold_of(long) == again.threshold_of(long) == 0.3
