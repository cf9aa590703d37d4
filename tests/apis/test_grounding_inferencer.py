"""From a video and sentences to moments."""

from unittest import mock

import h5py
import numpy as np
import pytest
import torch
from helpers.tiny_corpus import FEATURE_SIZE, write_config
from helpers.tiny_grounder import GRID_SIZE, save_checkpoint, write_grounder, write_scene
from mmaction.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.features import VideoReadError
from mmn_plugin.shapes import GridFeatureExtractor

SENTENCES = ['a person opens the door', 'red box']


@pytest.fixture(scope='module')
def grounder(tmp_path_factory):
    return write_grounder(tmp_path_factory.mktemp('grounder'))


@pytest.fixture(scope='module')
def video(grounder):
    return write_scene(grounder.folder)


@pytest.fixture(scope='module')
def inferencer(grounder):
    return GroundingInferencer(grounder.config, grounder.checkpoint, device='cpu')


@pytest.fixture
def features():
    return np.random.default_rng(0).random((20, GRID_SIZE), dtype=np.float32)


def test_answers_are_those_of_a_test_run(tmp_path):
    grounder = write_grounder(tmp_path, in_channels=FEATURE_SIZE)
    inferencer = GroundingInferencer(str(grounder.config), grounder.checkpoint, 'cpu')
    dataset = DATASETS.build(Config.fromfile(grounder.config).test_dataloader.dataset)
    with h5py.File(grounder.corpus / 'features.h5') as file:
        for packed in dataset:
            sample = packed['data_samples']
            expected = inferencer.model.test_step(pseudo_collate([packed]))[0].pred_instances
            answers = inferencer(file[sample.video_id][:], sample.sentences, sample.duration)
            for i, answer in enumerate(answers):
                there = ~expected.scores[i].isnan()
                assert answer['sentence'] == sample.sentences[i]
                assert answer['moments'] == expected.moments[i][there].tolist()
                assert answer['scores'] == pytest.approx(expected.scores[i][there].tolist())


def test_a_video_file_is_its_features_and_its_length(inferencer, video):
    features = GridFeatureExtractor()(video)
    assert inferencer(str(video), SENTENCES) == inferencer(features, SENTENCES, duration=24.0)


def test_a_real_video_gives_ranked_moments_within_it(inferencer, shared):
    answers = inferencer(shared / 'media' / 'basketball.mp4', SENTENCES)
    for answer in answers:
        assert 1 <= len(answer['moments']) == len(answer['scores']) <= 5
        assert answer['scores'] == sorted(answer['scores'], reverse=True)
        assert all(0 <= start < end <= 10.05 for start, end in answer['moments'])


def test_an_encoded_video_is_not_encoded_again(inferencer, features):
    encoded = inferencer.encode(features, duration=10.0)
    with mock.patch.object(inferencer.model, 'encode_videos', side_effect=AssertionError):
        first = inferencer.ground(encoded, SENTENCES[0])
        both = inferencer.ground(encoded, SENTENCES)
    assert [answer['sentence'] for answer in both] == SENTENCES
    assert both[0]['moments'] == first[0]['moments']


def test_map_scores_hold_those_of_the_ranked_moments(inferencer, features):
    encoded = inferencer.encode(torch.from_numpy(features), duration=10.0)
    scores = inferencer.score_moments(encoded, SENTENCES)
    ranked = inferencer.predict(encoded, SENTENCES).pred_instances
    assert scores.shape == (2, inferencer.model.grid.num_moments)
    assert torch.equal(scores.max(1).values, ranked.scores[:, 0])


def test_top_n_sets_the_number_of_moments(grounder, features):
    inferencer = GroundingInferencer(grounder.config, grounder.checkpoint, 'cpu', top_n=2)
    assert [len(a['moments']) for a in inferencer(features, SENTENCES, 10.0)] == [2, 2]


def test_the_checkpoint_brings_its_tokenizer_where_the_vocabulary_is_gone(
    grounder, inferencer, features
):
    config = Config.fromfile(grounder.config)
    config.model.data_preprocessor.tokenizer.vocab = 'gone.txt'
    moved = GroundingInferencer(config, grounder.checkpoint, 'cpu')
    assert moved(features, SENTENCES, 10.0) == inferencer(features, SENTENCES, 10.0)


def test_without_any_vocabulary_construction_fails(grounder, tmp_path):
    config = Config.fromfile(grounder.config)
    config.model.data_preprocessor.tokenizer.vocab = 'gone.txt'
    loaded = torch.load(grounder.checkpoint)
    torch.save(loaded['state_dict'], tmp_path / 'bare.pth')
    with pytest.raises(FileNotFoundError, match=r'gone\.txt'):
        GroundingInferencer(config, tmp_path / 'bare.pth', 'cpu')


@pytest.mark.parametrize(
    ('sentences', 'message'),
    [
        ('', "sentence '' is empty"),
        (['a box', '  '], "sentence '  ' is empty"),
        ('zzz qqq', "'zzz qqq' holds no word of the vocabulary"),
        ([], 'no sentence'),
        ([None], 'None is empty'),
        ('?!', r"'\?!' holds no word"),
    ],
)
def test_a_sentence_that_says_nothing_is_refused(inferencer, features, sentences, message):
    with pytest.raises(ValueError, match=message):
        inferencer(features, sentences, 10.0)


def test_a_sentence_is_refused_before_the_video_is_read(inferencer):
    with pytest.raises(ValueError, match='zzz'):
        inferencer('no_such.mp4', 'zzz')


@pytest.mark.parametrize(
    ('features', 'duration', 'message'),
    [
        (np.ones(GRID_SIZE), 10.0, 'shape'),
        (np.ones((0, GRID_SIZE)), 10.0, 'shape'),
        (np.ones((5, 7)), 10.0, f'kitchen have size 7, .*in_channels is {GRID_SIZE}'),
        (np.diag([np.nan] * GRID_SIZE), 10.0, 'NaN'),
        (np.ones((3, GRID_SIZE)), None, 'duration'),
        (np.ones((3, GRID_SIZE)), 0.0, 'duration'),
    ],
)
def test_unusable_features_are_refused(inferencer, features, duration, message):
    with pytest.raises(ValueError, match=message):
        inferencer.encode(features, duration=duration, video_id='kitchen')


def test_an_unreadable_video_is_named(inferencer, tmp_path):
    (tmp_path / 'broken.mp4').write_bytes(b'no video' * 100)
    with pytest.raises(VideoReadError, match=r'broken\.mp4'):
        inferencer(tmp_path / 'broken.mp4', SENTENCES)
    with pytest.raises(VideoReadError, match=r'absent\.mp4: no such file'):
        inferencer(tmp_path / 'absent.mp4', SENTENCES)


def test_a_config_without_extractor_takes_features_alone(grounder, video, features):
    config = Config.fromfile(grounder.config)
    config.pop('extractor')
    inferencer = GroundingInferencer(config, grounder.checkpoint, 'cpu')
    assert len(inferencer(features, SENTENCES, 10.0)) == 2
    with pytest.raises(ValueError, match='no `extractor`'):
        inferencer(video, SENTENCES)


def test_a_checkpoint_of_another_architecture_is_refused(grounder, tmp_path):
    other = write_config(tmp_path / 'other.py', grounder.corpus)  # in_channels differ
    checkpoint = save_checkpoint(other, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'other\.pth belongs to another architecture.*backbone'):
        GroundingInferencer(grounder.config, checkpoint, 'cpu')


def test_a_checkpoint_of_another_vocabulary_is_refused(grounder, tmp_path):
    words = (grounder.corpus / 'vocab.txt').read_text().replace('box', 'hat')
    (tmp_path / 'vocab.txt').write_text(words)
    config = Config.fromfile(grounder.config)
    config.model.data_preprocessor.tokenizer.vocab = str(tmp_path / 'vocab.txt')
    with pytest.raises(ValueError, match='another vocabulary'):
        GroundingInferencer(config, grounder.checkpoint, 'cpu')


def test_missing_files_are_named(grounder):
    with pytest.raises(FileNotFoundError, match=r'none\.pth.*tiny\.pth'):
        GroundingInferencer(grounder.config, grounder.folder / 'none.pth', 'cpu')
    with pytest.raises(FileNotFoundError, match='no_such_config'):
        GroundingInferencer('no_such_config.py', grounder.checkpoint, 'cpu')


def test_shapes_config_extracts_as_the_tool_does():
    config = Config.fromfile('mmn_plugin::mmn_shapes.py')
    settings = {key: value for key, value in config.extractor.items() if key != 'type'}
    assert GridFeatureExtractor(**settings).settings == GridFeatureExtractor().settings
    assert config.model.backbone.in_channels == GridFeatureExtractor().num_features


def test_thousands_of_sentences_go_through_the_model_a_batch_at_a_time(
    grounder, inferencer, features, monkeypatch
):
    few = GroundingInferencer(grounder.config, grounder.checkpoint, 'cpu', sentence_batch=100)
    encoded = few.encode(features, duration=10.0)
    words = ('a person opens', 'the red box', 'slowly closes the blue door')
    sentences = [f'{words[i % 3]} {words[i % 2]}' for i in range(1050)]
    sizes, encode = [], few.model.text_encoder.forward
    monkeypatch.setattr(
        few.model.text_encoder,
        'forward',
        lambda batch: (sizes.append(len(batch.video)), encode(batch))[1],
    )
    ranked = few.predict(encoded, sentences)
    assert sizes == [100] * 10 + [50]
    assert ranked.sentences == sentences
    assert ranked.sentence_index == list(range(1050))
    assert ranked.pred_instances.moments.shape == (1050, 5, 2)
    whole = inferencer.score_moments(encoded, sentences[:150])
    torch.testing.assert_close(few.score_moments(encoded, sentences[:150]), whole)
    torch.testing.assert_close(ranked.pred_instances.scores[:150, 0], whole.max(1).values)
    answers = few.ground(encoded, sentences)
    assert answers[1049]['sentence'] == sentences[1049]
    assert answers[1049]['scores'] == pytest.approx(answers[5]['scores'])  # the same sentence


def test_a_batch_of_no_sentences_is_refused(grounder):
    with pytest.raises(ValueError, match='sentence_batch=0'):
        GroundingInferencer(grounder.config, grounder.checkpoint, 'cpu', sentence_batch=0)
