"""From a video and sentences to moments."""

from unittest import mock

import h5py
import numpy as np
import pytest
import torch
from helpers.tiny_corpus import FEATURE_SIZE, write_config
from helpers.tiny_grounder import GRID_SIZE, save_checkpoint, write_grounder
from mmaction.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.files import OutputError
from mmn_plugin.models import moment_scores
from mmn_plugin.shapes import GridFeatureExtractor
from mmn_plugin.structures import temporal_iou

SENTENCES = ['a person opens the door', 'red box']


@pytest.fixture(scope='module')
def expected(inferencer, features):
    return inferencer(features, SENTENCES, 24.0)


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


def test_an_encoded_video_is_not_encoded_again_and_its_scores_hold_the_ranked_ones(
    inferencer, features, expected
):
    encoded = inferencer.encode(torch.from_numpy(features), duration=24.0)
    with mock.patch.object(inferencer.model, 'encode_videos', side_effect=AssertionError):
        assert inferencer.ground(encoded, SENTENCES) == expected
        assert inferencer.ground(encoded, SENTENCES[0])[0]['moments'] == expected[0]['moments']
        scores = inferencer.score_moments(encoded, SENTENCES)
        ranked = inferencer.predict(encoded, SENTENCES).pred_instances
    assert scores.shape == (2, inferencer.model.grid.num_moments)
    assert torch.equal(scores.max(1).values, ranked.scores[:, 0])


def test_numbers_of_moments_and_sizes_of_batches(grounder, features):
    given = (grounder.config, grounder.checkpoint, 'cpu')
    inferencer = GroundingInferencer(*given, top_n=2)
    assert [len(a['moments']) for a in inferencer(features, SENTENCES, 24.0)] == [2, 2]
    for name in ('sentence_batch', 'top_n'):
        with pytest.raises(ValueError, match=f'{name}=0'):
            GroundingInferencer(*given, **{name: 0})


def test_the_checkpoint_brings_its_tokenizer_where_the_vocabulary_is_gone(
    grounder, features, expected, tmp_path
):
    config = Config.fromfile(grounder.config)
    config.model.data_preprocessor.tokenizer.vocab = 'gone.txt'
    assert (
        GroundingInferencer(config, grounder.checkpoint, 'cpu')(features, SENTENCES, 24.0)
        == expected
    )
    torch.save(torch.load(grounder.checkpoint)['state_dict'], tmp_path / 'bare.pth')
    with pytest.raises(FileNotFoundError, match=r'gone\.txt'):
        GroundingInferencer(config, tmp_path / 'bare.pth', 'cpu')


def test_checkpoints_that_belong_elsewhere_or_do_not_exist_are_refused(grounder, tmp_path):
    other = write_config(tmp_path / 'other.py', grounder.corpus)  # in_channels differ
    checkpoint = save_checkpoint(other, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'other\.pth belongs to another architecture.*backbone'):
        GroundingInferencer(grounder.config, checkpoint, 'cpu')
    words = (grounder.corpus / 'vocab.txt').read_text().replace('box', 'hat')
    (tmp_path / 'vocab.txt').write_text(words)
    config = Config.fromfile(grounder.config)
    config.model.data_preprocessor.tokenizer.vocab = str(tmp_path / 'vocab.txt')
    with pytest.raises(ValueError, match='another vocabulary'):
        GroundingInferencer(config, grounder.checkpoint, 'cpu')
    with pytest.raises(FileNotFoundError, match=r'none\.pth.*tiny\.pth'):
        GroundingInferencer(grounder.config, grounder.folder / 'none.pth', 'cpu')
    with pytest.raises(FileNotFoundError, match='no_such_config'):
        GroundingInferencer('no_such_config.py', grounder.checkpoint, 'cpu')


@pytest.mark.parametrize(
    ('sentences', 'message'),
    [
        ('', "sentence '' is empty"),
        (['a box', '  '], "sentence '  ' is empty"),
        ('zzz qqq', "'zzz qqq' holds no word of the vocabulary"),
        ('?!', r"'\?!' holds no word"),
        ([], 'no sentence'),
        ([None], 'None is no text'),
        ([b'a red box'], 'is no text'),
        (7, 'sentences=7'),
        (['a red \ud83d box'], r"holds '\\ud83d'"),
    ],
)
def test_what_is_no_sentence_is_refused_before_the_video_is_read(inferencer, sentences, message):
    with pytest.raises(ValueError, match=message):
        inferencer('no_such.mp4', sentences)


def test_a_config_without_extractor_takes_features_alone(grounder, features, expected):
    config = Config.fromfile(grounder.config)
    config.pop('extractor')
    inferencer = GroundingInferencer(config, grounder.checkpoint, 'cpu')
    assert inferencer(features, SENTENCES, 24.0) == expected
    with pytest.raises(ValueError, match='no `extractor`'):
        inferencer(grounder.video, SENTENCES)


def test_shapes_config_extracts_as_the_tool_does():
    config = Config.fromfile('mmn_plugin::mmn_shapes.py')
    settings = {key: value for key, value in config.extractor.items() if key != 'type'}
    assert GridFeatureExtractor(**settings).settings == GridFeatureExtractor().settings
    assert config.model.backbone.in_channels == GridFeatureExtractor().num_features


def test_thousands_of_sentences_go_through_the_model_a_batch_at_a_time(
    grounder, inferencer, features, monkeypatch
):
    few = GroundingInferencer(grounder.config, grounder.checkpoint, 'cpu', sentence_batch=100)
    encoded = few.encode(features, duration=24.0)
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


def test_videos_and_sentences_come_in_batches(grounder, inferencer, features, expected):
    videos = [grounder.video, features, np.ones((9, GRID_SIZE)), features[:20]]
    durations = [None, 24.0, 7.0, 15.0]
    together = inferencer(videos, SENTENCES, durations, batch_size=3)
    assert together[:2] == [expected, expected]
    for answers, video, duration in zip(together, videos, durations, strict=True):
        alone = inferencer(video, SENTENCES, duration)
        for one, other in zip(answers, alone, strict=True):
            assert one['moments'] == other['moments']
            assert one['scores'] == pytest.approx(other['scores'])
    own = inferencer(videos[:2], [['red box'], SENTENCES], durations[:2])
    assert [len(answers) for answers in own] == [1, 2]
    assert own[0][0]['moments'] == expected[1]['moments']
    assert inferencer((features,), 'red box', 24.0)[0][0]['sentence'] == 'red box'


@pytest.mark.parametrize(
    ('sentences', 'durations', 'message'),
    [
        ([['a box'], ['a box'], ['a box']], None, '2 videos, but 3 lists'),
        ('a box', [1.0, 2.0, 3.0], '2 videos, but 3 durations'),
        ([['a box'], []], None, 'no sentence'),
    ],
)
def test_lists_that_do_not_fit_together_are_refused(inferencer, sentences, durations, message):
    with pytest.raises(ValueError, match=message):
        inferencer(['a.mp4', 'b.mp4'], sentences, durations)


def test_steps_of_the_base_class_give_samples_and_pictures(grounder, inferencer, tmp_path):
    (sample,) = inferencer(
        [grounder.video],
        SENTENCES,
        return_datasamples=True,
        out_dir=tmp_path,
        top_n=2,
        video_id=['kitchen'],
    )
    assert sample.pred_instances.moments.shape == (2, 2, 2)
    assert sample.sentences == SENTENCES
    assert (tmp_path / 'kitchen_timeline.png').stat().st_size > 1000
    curves = sample.pred_instances.curves  # drawn under the bars
    assert curves.shape == (2, inferencer.model.grid.num_clips)
    assert torch.equal(curves.max(1).values, sample.pred_instances.scores[:, 0])
    sample = inferencer(grounder.video, SENTENCES, return_datasamples=True)
    assert 'curves' not in sample.pred_instances  # nothing is drawn
    with pytest.raises(ValueError, match='unknown argument'):
        inferencer(grounder.video, SENTENCES, color='red')


def test_each_input_has_a_picture_of_its_own(inferencer, tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.random((8, GRID_SIZE), np.float32) for _ in range(2)]
    for order in ([0, 1, 1], [0, 1, 1], [1, 0, 0]):
        inferencer([arrays[i] for i in order], 'a red box', [9.0] * 3, out_dir=tmp_path)
    inferencer(arrays[0], 'a red box', 9.0, video_id='a/видео', out_dir=tmp_path)
    names = ['array', 'array-2', 'array-3', 'array-4']  # each of both, and its second time
    assert {path.name.removesuffix('_timeline.png') for path in tmp_path.glob('*.png')} == {
        *names,
        'a_видео',
    }


def test_a_picture_of_someone_else_stops_it_before_the_work_and_nothing_is_left(
    inferencer, tmp_path
):
    (tmp_path / 'v_timeline.png').write_text('mine')
    with pytest.raises(OutputError, match=r'v_timeline\.png is there and was not written by'):
        inferencer(['no such file.mp4', '/no such folder/v.mp4'], 'a red box', out_dir=tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ['mine']


@pytest.fixture(scope='module')
def long_inferencer(grounder):
    inferencer = GroundingInferencer(
        grounder.config, grounder.checkpoint, 'cpu', long_video=dict(window=24.0)
    )
    inferencer.model.head.window_score_power = 4.0
    return inferencer


def test_a_long_video_is_looked_at_in_windows_on_one_time_axis(long_inferencer, features):
    gaps = np.random.default_rng(0).random((32, GRID_SIZE), dtype=np.float32)
    joined = np.concatenate([gaps, features, gaps])
    encoded = long_inferencer.encode(joined, duration=72.0)
    assert encoded.num_windows == 9
    assert len(encoded.spans) > long_inferencer.model.grid.num_moments
    assert long_inferencer.encode(features, duration=24.0).num_windows == 1
    answers = long_inferencer.ground(encoded, SENTENCES)
    for answer in answers:
        assert answer['scores'] == sorted(answer['scores'], reverse=True)
        assert all(0 <= start < end <= 72 for start, end in answer['moments'])
    scores = long_inferencer.score_moments(encoded, SENTENCES)
    assert scores.shape == (2, len(encoded.spans))
    assert answers[0]['scores'][0] == pytest.approx(float(scores[0].max()))
    head = long_inferencer.model.head
    with torch.inference_mode():
        cosines = head.cosines(encoded, long_inferencer.model.encode_sentences(SENTENCES))
    iou = (head.iou_scale * cosines['iou']).sigmoid()
    torch.testing.assert_close(
        scores, moment_scores(cosines['contrastive'], iou, 4.0) * encoded.trust
    )
    found = long_inferencer.predict(encoded, SENTENCES, top_n=20, whole=True).pred_instances
    assert torch.equal(found.unit_scores, scores)
    assert torch.allclose(found.curves.max(1).values, scores.max(1).values)
    found = found.moments
    overlap = temporal_iou(found[:, :, None], found[:, None])  # no two moments are one
    overlap[:, range(20), range(20)] = 0
    assert overlap[~overlap.isnan()].max() <= head.nms_threshold


def test_windows_of_a_video_file_are_those_of_its_features(grounder, features, monkeypatch):
    monkeypatch.setattr('mmn_plugin.apis.long_video.WINDOW_BATCH', 2)
    inferencer = GroundingInferencer(
        grounder.config,
        grounder.checkpoint,
        'cpu',
        long_video=dict(window=6.0, overlap=0.5, longest=10.0),
    )
    encoded = inferencer.encode(grounder.video)
    assert encoded.num_windows == 7
    assert inferencer.ground(encoded, SENTENCES) == inferencer(features, SENTENCES, 24.0)
