"""Whether a sentence occurs at all."""
import numpy as np
import pytest
from helpers.tiny_corpus import FEATURE_SIZE
from helpers.tiny_grounder import write_grounder
from mmaction.registry import DATASETS
from mmengine.config import Config

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.apis.presence import auroc, calibrate_presence, foreign_sentences, measure_presence


@pytest.fixture(scope='module')
def grounder(tmp_path_factory):
    return write_grounder(tmp_path_factory.mktemp('presence'), in_channels=FEATURE_SIZE)


@pytest.fixture(scope='module')
def dataset(grounder):
    return DATASETS.build(Config.fromfile(grounder.config).val_dataloader.dataset)


@pytest.fixture
def inferencer(grounder):
    return GroundingInferencer(grounder.config, grounder.checkpoint, 'cpu')


def test_auroc_counts_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    for _ in range(20):
        present, absent = rng.integers(0, 6, 7) + 1., rng.integers(0, 6, 9) + 0.
        pairs = present[:, None] - absent
        assert auroc(present, absent) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert auroc([2, 3], [0, 1]) == 1
    with pytest.raises(ValueError, match='0 present and 1 absent'):
        auroc([], [1])


def test_foreign_sentences_are_those_of_other_videos(dataset):
    chosen = foreign_sentences(dataset, per_video=4)
    assert chosen == foreign_sentences(dataset, per_video=4)
    assert chosen != foreign_sentences(dataset, per_video=4, seed=1)
    for packed in dataset:
        sample = packed['data_samples']
        assert 1 <= len(chosen[sample.video_id]) <= 4
        assert not set(chosen[sample.video_id]) & set(sample.sentences)


def test_presence_is_that_of_the_inferencer(inferencer, dataset):
    absent = {packed['data_samples'].video_id: ['red box'] for packed in dataset}
    present, others = measure_presence(inferencer, dataset, absent)
    assert len(others) == len(dataset)
    sample = dataset[0]['data_samples']
    encoded = inferencer.video_encoder.encode_pooled(dataset[0]['inputs'], sample)
    expected = inferencer.predict(encoded, [*sample.sentences, 'red box']).pred_instances.presence
    assert np.allclose(present[:len(expected) - 1], expected[:-1])
    assert others[0] == pytest.approx(float(expected[-1]))
    assert (np.abs(present) <= 1 + 1e-6).all()


def test_the_threshold_keeps_the_share_of_present_sentences(inferencer, dataset, tmp_path):
    found = calibrate_presence(inferencer, dataset, keep=0.7)
    present, others = measure_presence(inferencer, dataset, foreign_sentences(dataset))
    assert (present >= found['threshold']).mean() == pytest.approx(0.7, abs=1 / len(present))
    assert (present >= found['threshold']).mean() >= 0.7 - 1e-9
    assert (others >= found['threshold']).mean() == found['absent_kept']
    assert found['present'] == len(present)
    assert inferencer.presence_threshold == found['threshold']
    inferencer.save_pretrained(tmp_path)
    again = GroundingInferencer.from_pretrained(tmp_path, device='cpu')
    assert again.presence_threshold == found['threshold']
    assert again.meta['presence'] == found


@pytest.mark.parametrize('keep', [0., 1., 1.5])
def test_a_share_that_is_none_is_refused(inferencer, dataset, keep):
    with pytest.raises(ValueError, match='keep='):
        calibrate_presence(inferencer, dataset, keep)
