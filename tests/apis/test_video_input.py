"""What can stand for a video, alone and in batches."""

import io
import os
import shutil
import threading
from fractions import Fraction

import av
import h5py
import numpy as np
import pytest
import torch
from helpers.tiny_grounder import GRID_SIZE, write_grounder, write_scene

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.apis.video_input import file_of_frames
from mmn_plugin.features import VideoReadError
from mmn_plugin.files import OutputError
from mmn_plugin.models import moment_scores
from mmn_plugin.shapes import GridFeatureExtractor
from mmn_plugin.structures import temporal_iou

SENTENCES = ['a person opens the door', 'red box']


@pytest.fixture(scope='module')
def grounder(tmp_path_factory):
    grounder = write_grounder(tmp_path_factory.mktemp('inputs'))
    grounder.video = write_scene(grounder.folder)
    return grounder


@pytest.fixture(scope='module')
def inferencer(grounder):
    return GroundingInferencer(grounder.config, grounder.checkpoint, device='cpu')


@pytest.fixture(scope='module')
def expected(grounder, inferencer):
    return inferencer(grounder.video, SENTENCES)


@pytest.fixture(scope='module')
def features(grounder):
    return GridFeatureExtractor()(grounder.video)


def test_an_open_file_is_the_file(grounder, inferencer, expected):
    with grounder.video.open('rb') as file:
        file.seek(100)  # wherever it stands
        assert inferencer(file, SENTENCES) == expected
    assert inferencer(io.BytesIO(grounder.video.read_bytes()), SENTENCES) == expected


@pytest.mark.parametrize(
    ('stream', 'message'), [(io.StringIO('text'), 'binary mode'), (io.BytesIO(), 'is empty')]
)
def test_an_open_file_of_no_use_is_refused(inferencer, stream, message):
    with pytest.raises(ValueError, match=message):
        inferencer(stream, SENTENCES)


def test_an_open_file_that_is_no_video_is_an_error_of_reading(inferencer):
    with pytest.raises(VideoReadError, match='cannot be decoded'):
        inferencer(io.BytesIO(b'no video' * 100), SENTENCES)


def frames_of(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)])


def test_a_video_is_decoded_ahead_while_features_are_made(grounder, expected, monkeypatch):
    begun = [threading.Event() for _ in range(3)]  # 24 s of the grid extractor are two blocks
    batches, describe = GridFeatureExtractor.batches, GridFeatureExtractor.describe_batch
    begun[2].set()
    described = iter(begun[1:])

    def noted(self, frames):
        for event, batch in zip(begun, batches(self, frames), strict=False):
            event.set()
            yield batch

    def waiting(self, batch):
        assert next(described).wait(600), 'nothing was decoded meanwhile'
        return describe(self, batch)

    inferencer = GroundingInferencer(grounder.config, grounder.checkpoint, device='cpu')
    monkeypatch.setattr(GridFeatureExtractor, 'batches', noted)
    monkeypatch.setattr(GridFeatureExtractor, 'describe_batch', waiting)
    assert inferencer.ground(inferencer.encode(grounder.video), SENTENCES) == expected
    assert next(described, None) is None


def test_an_array_of_frames_is_the_video_it_was_decoded_from(grounder, inferencer, features):
    frames = frames_of(grounder.video)
    encoded = inferencer.encode(frames, fps=8.0)
    assert encoded.duration == 24.0
    with file_of_frames(frames, 8.0) as path:
        assert np.array_equal(frames_of(path), frames)  # nothing is lost
        again = GridFeatureExtractor()(path)
    assert again.shape == features.shape
    assert np.abs(again - features).mean() < 0.01  # YUV to RGB and back is rounded


@pytest.mark.parametrize(
    ('shape', 'dtype', 'fps', 'message'),
    [
        ((4, 8, 8, 3), np.uint8, None, 'fps='),
        ((4, 8, 8, 3), np.uint8, 0, 'fps='),
        ((4, 8, 8, 3), np.float32, 8, 'uint8, RGB'),
        ((4, 3, 8, 8), np.uint8, 8, 'uint8, RGB'),
        ((0, 8, 8, 3), np.uint8, 8, 'uint8, RGB'),
        ((8, 8, 3), np.uint8, 8, 'frames are'),
    ],
)
def test_frames_of_no_use_are_refused(inferencer, shape, dtype, fps, message):
    with pytest.raises(ValueError, match=message):
        inferencer.encode(np.zeros(shape, dtype), fps=fps)


def test_an_entry_of_an_hdf5_file_brings_its_duration_where_it_tells(
    inferencer, features, expected, tmp_path
):
    with h5py.File(tmp_path / 'f.h5', 'w') as file:
        file['scene'] = features
        file['scene'].attrs.update(stride=6, fps=8.0)
        file['nested/c3d'] = features
        assert inferencer(file['scene'], SENTENCES) == expected
        with pytest.raises(ValueError, match='nested/c3d is: give duration'):
            inferencer(file['nested/c3d'], SENTENCES)
    path = tmp_path / 'f.h5'
    assert inferencer(f'{path}::scene', SENTENCES) == expected
    assert inferencer(f'{path}::nested/c3d', SENTENCES, 24.0) == expected
    with pytest.raises(ValueError, match=r"'absent' is not in the features"):
        inferencer(f'{path}::absent', SENTENCES)
    with pytest.raises(FileNotFoundError, match=r'none\.h5 do not exist'):
        inferencer(f'{tmp_path}/none.h5::scene', SENTENCES)


def test_features_of_another_extractor_than_the_trainings_are_refused(grounder, features, tmp_path):
    made = GridFeatureExtractor().fingerprint
    loaded = torch.load(grounder.checkpoint)
    loaded['meta']['extractor'] = [made]
    torch.save(loaded, tmp_path / 'known.pth')
    inferencer = GroundingInferencer(grounder.config, tmp_path / 'known.pth', 'cpu')
    path = tmp_path / 'f.h5'
    with h5py.File(path, 'w') as file:
        for name, stride in (('same', 6), ('other', 12)):
            file[name] = features
            file[name].attrs.update(extractor=made['extractor'], stride=stride, fps=8.0)
        with pytest.raises(ValueError, match=r'known\.pth and .* other .*: stride 6, here 12'):
            inferencer(file['other'], SENTENCES)
    expected = inferencer(features, SENTENCES, 24.0)  # an array does not tell what made it
    assert inferencer(f'{path}::same', SENTENCES) == expected
    with pytest.raises(ValueError, match='do not belong together'):
        inferencer(f'{path}::other', SENTENCES)
    inferencer.save_pretrained(tmp_path / 'folder')
    again = GroundingInferencer.from_pretrained(tmp_path / 'folder', device='cpu')
    with pytest.raises(ValueError, match=r'folder and .* do not belong together'):
        again(f'{path}::other', SENTENCES)


class Named:
    """A path of another library."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


@pytest.mark.parametrize('kind', [str, Named, np.array])
@pytest.mark.parametrize('coded', [str, os.fsencode])
def test_paths_of_all_kinds_are_the_file(grounder, inferencer, expected, kind, coded):
    path = coded(str(grounder.video))
    assert inferencer(path if kind is str else kind(path), np.array(SENTENCES)) == expected


@pytest.mark.parametrize('kind', [object, str, bytes])
def test_a_list_of_paths_may_be_an_array(grounder, inferencer, expected, kind, tmp_path):
    video = os.fsencode(grounder.video) if kind is bytes else str(grounder.video)
    assert inferencer(np.array([video] * 2, kind), SENTENCES) == [expected] * 2
    assert (
        inferencer(np.array([video] * 2, kind), np.array([SENTENCES] * 2), np.array([24.0, 24.0]))
        == [expected] * 2
    )


def test_config_and_checkpoint_may_be_paths_of_all_kinds(grounder, inferencer, features, tmp_path):
    expected = inferencer(features, SENTENCES, 24.0)
    for kind in (os.fsencode, Named):
        again = GroundingInferencer(
            kind(str(grounder.config)), kind(str(grounder.checkpoint)), 'cpu'
        )
        assert again(features, SENTENCES, 24.0) == expected
    inferencer.save_pretrained(Named(str(tmp_path / 'model')))
    again = GroundingInferencer.from_pretrained(os.fsencode(tmp_path / 'model'), device='cpu')
    assert again(features, SENTENCES, 24.0) == expected


def test_relative_names_with_colons_are_files(
    grounder, inferencer, features, tmp_path, monkeypatch
):
    expected = inferencer(features, SENTENCES, 24.0)
    (tmp_path / 'file:').mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ('file:/a:1', 'http:2'):
        shutil.copy(grounder.config, f'{name}.py')
        shutil.copy(grounder.checkpoint, f'{name}.pth')
        shutil.copy(grounder.video, f'{name}.mp4')
        with h5py.File(f'{name}::x.h5', 'w') as file:
            file['v::1'] = features
        again = GroundingInferencer(f'{name}.py', f'{name}.pth', 'cpu')
        assert again(f'{name}.mp4', SENTENCES) == expected
        assert again(f'{name}::x.h5::v::1', SENTENCES, 24.0) == expected
    shutil.copy(grounder.checkpoint, 'file:/b.pth')
    again = GroundingInferencer(grounder.config, 'file://b.pth', 'cpu')  # which MMEngine would ask
    assert again(features, SENTENCES, 24.0) == expected


@pytest.mark.parametrize(
    'fps', [np.float32(8), np.array([8]), torch.tensor(8.0), '8', b'8.0', '16/2', Fraction(8), 8]
)
def test_a_rate_is_a_number_of_any_kind(inferencer, fps):
    frames = np.zeros((24, 16, 16, 3), np.uint8)
    frames[:, :, :8] = np.arange(24, dtype=np.uint8)[:, None, None, None] * 9
    assert inferencer.encode(frames, fps=fps).duration == 3.0
    assert inferencer.encode(frames, fps=fps, duration=fps).duration == 8.0


HUGE = pytest.param(10**400, id='huge')


@pytest.mark.parametrize(
    'number', ['fast', '1/0', np.nan, np.inf, -1, 0, True, [8.0], np.ones(2), b'\xff', HUGE]
)
def test_what_is_no_rate_and_no_duration_is_refused(inferencer, features, number):
    with pytest.raises(ValueError, match='give fps='):
        inferencer.encode(np.zeros((24, 16, 16, 3), np.uint8), fps=number)
    with pytest.raises(ValueError, match='give the seconds'):
        inferencer.encode(features, duration=number)


def test_an_entry_with_a_rate_as_text_tells_its_duration(inferencer, features, tmp_path):
    with h5py.File(tmp_path / 'f.h5', 'w') as file:
        file['scene'] = features
        file['scene'].attrs.update(stride=np.array([6]), fps='24000/3000')
        assert inferencer.encode(file['scene']).duration == 24.0
        file['scene'].attrs['fps'] = 'unknown'
        with pytest.raises(ValueError, match=r"f\.h5: entry '/scene' has .*fps='unknown'"):
            inferencer.encode(file['scene'])
        entry = file.create_dataset('empty', features.shape, np.float32)
        with pytest.raises(ValueError, match=r"f\.h5: entry '/empty' was created, but never"):
            inferencer.encode(entry, duration=24.0)


def test_tensors_of_any_kind_are_features(inferencer, features):
    features = np.round(features * 8) / 8  # such as bfloat16 holds
    expected, tensor = inferencer(features, SENTENCES, 24.0), torch.from_numpy(features)
    trainable = tensor.clone().requires_grad_()
    for kind in (tensor.bfloat16(), trainable, tensor.to_sparse(), tensor.half()):
        assert inferencer(kind, SENTENCES, '24') == expected


@pytest.mark.parametrize(
    ('video', 'message'), [({'a': 1}, 'a dict is neither'), (object(), 'a object is neither')]
)
def test_what_is_no_video_at_all_is_refused(inferencer, video, message):
    with pytest.raises(ValueError, match=message):
        inferencer(video, SENTENCES, 24.0)


@pytest.mark.parametrize(
    ('sentences', 'message'),
    [
        ([b'a red box'], 'is no text'),
        (7, 'sentences=7'),
        (['a red \ud83d box'], r"holds '\\ud83d'"),
    ],
)
def test_what_is_no_sentence_is_refused(inferencer, sentences, message):
    with pytest.raises(ValueError, match=message):
        inferencer('video.mp4', sentences)


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


def test_each_input_has_a_picture_of_its_own(grounder, inferencer, tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.random((8, GRID_SIZE), np.float32) for _ in range(2)]
    for order in ([0, 1, 1], [0, 1, 1], [1, 0, 0]):
        inferencer([arrays[i] for i in order], 'a red box', [9.0] * 3, out_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.glob('*.png')) == [
        'array-2_timeline.png',
        'array-3_timeline.png',
        'array-4_timeline.png',
        'array_timeline.png',
    ]  # each of both, and its second time
    inferencer(arrays[0], 'a red box', 9.0, video_id='a/видео', out_dir=tmp_path)
    assert (tmp_path / 'a_видео_timeline.png').is_file()


def test_a_picture_of_someone_else_is_not_replaced_and_stops_it_before_the_work(
    inferencer, tmp_path
):
    (tmp_path / 'v_timeline.png').write_text('mine')
    with pytest.raises(OutputError, match=r'v_timeline\.png is there and was not written by'):
        inferencer(['no such file.mp4', '/no such folder/v.mp4'], 'a red box', out_dir=tmp_path)
    assert (tmp_path / 'v_timeline.png').read_text() == 'mine'


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
    curves = long_inferencer.curves(encoded, SENTENCES)
    assert torch.allclose(curves.max(1).values, scores.max(1).values)


def test_no_two_moments_of_a_long_video_are_one(long_inferencer, features):
    encoded = long_inferencer.encode(np.concatenate([features] * 5), duration=120.0)
    found = long_inferencer.predict(encoded, SENTENCES, top_n=20).pred_instances.moments
    overlap = temporal_iou(found[:, :, None], found[:, None])
    overlap[:, range(20), range(20)] = 0
    assert overlap[~overlap.isnan()].max() <= long_inferencer.model.head.nms_threshold


def test_windows_of_a_video_file_are_those_of_its_features(grounder, features):
    inferencer = GroundingInferencer(
        grounder.config,
        grounder.checkpoint,
        'cpu',
        window_batch=2,
        long_video=dict(window=6.0, overlap=0.5, longest=10.0),
    )
    encoded = inferencer.encode(grounder.video)
    assert encoded.num_windows == 7
    assert inferencer.ground(encoded, SENTENCES) == inferencer(features, SENTENCES, 24.0)
