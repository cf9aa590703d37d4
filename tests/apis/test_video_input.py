"""What can stand for a video."""

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
from helpers.tiny_grounder import GRID_SIZE

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.apis.video_input import VideoFeatures, file_of_frames
from mmn_plugin.features import VideoReadError
from mmn_plugin.shapes import GridFeatureExtractor

SENTENCES = ['a person opens the door', 'red box']


class Named:
    """A path of another library."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


@pytest.fixture(scope='module')
def expected(inferencer, features):
    return inferencer(features, SENTENCES, 24.0)


def test_a_video_is_its_file_in_any_form(grounder, inferencer, expected):
    path = str(grounder.video)
    forms = [path, os.fsencode(path), Named(path), Named(os.fsencode(path)), np.array(path)]
    for form in [*forms, io.BytesIO(grounder.video.read_bytes())]:
        assert inferencer(form, np.array(SENTENCES)) == expected
    with grounder.video.open('rb') as file:
        file.seek(100)  # wherever it stands
        assert inferencer(file, SENTENCES) == expected
    for several in (np.array([path] * 2, object), np.array([path] * 2), np.array([forms[1]] * 2)):
        lists = np.array([SENTENCES] * 2)
        assert inferencer(several, lists, np.array([24.0, 24.0])) == [expected] * 2


def test_config_and_checkpoint_may_be_paths_of_all_kinds(grounder, features, expected, tmp_path):
    for kind in (os.fsencode, Named):
        paths = kind(str(grounder.config)), kind(str(grounder.checkpoint))
        again = GroundingInferencer(*paths, 'cpu')
        assert again(features, SENTENCES, 24.0) == expected
    again.save_pretrained(Named(str(tmp_path / 'model')))
    again = GroundingInferencer.from_pretrained(os.fsencode(tmp_path / 'model'), device='cpu')
    assert again(features, SENTENCES, 24.0) == expected


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
    assert inferencer.encode(frames, fps=8.0).duration == 24.0
    with file_of_frames(frames, 8.0) as path:
        assert np.array_equal(frames_of(path), frames)  # nothing is lost
        again = GridFeatureExtractor()(path)
    assert again.shape == features.shape
    assert np.abs(again - features).mean() < 0.01  # YUV to RGB and back is rounded
    cut = VideoFeatures.of(frames[:-2], GridFeatureExtractor, fps=8.0)  # within its last row
    assert (cut.duration, len(cut.values), cut.row_seconds) == (23.75, 32, 0.75)


def test_tensors_of_any_kind_are_features(inferencer, features):
    features = np.round(features * 8) / 8  # such as bfloat16 holds
    expected, tensor = inferencer(features, SENTENCES, 24.0), torch.from_numpy(features)
    trainable = tensor.clone().requires_grad_()
    for kind in (tensor.bfloat16(), trainable, tensor.to_sparse(), tensor.half()):
        assert inferencer(kind, SENTENCES, '24') == expected


def test_an_entry_of_an_hdf5_file_brings_its_duration_where_it_tells(
    inferencer, features, expected, tmp_path
):
    path = tmp_path / 'f.h5'
    with h5py.File(path, 'w') as file:
        file['scene'], file['nested/c3d'] = features, features
        entry = file['scene']
        entry.attrs.update(stride=np.array([6]), fps='24000/3000')
        assert inferencer(entry, SENTENCES) == expected
        entry.attrs['fps'] = 'unknown'
        with pytest.raises(ValueError, match=r"f\.h5: entry '/scene' has .*fps='unknown'"):
            inferencer.encode(entry)
        entry.attrs.update(stride=6, fps=8.0)
        with pytest.raises(ValueError, match='nested/c3d is: give duration'):
            inferencer(file['nested/c3d'], SENTENCES)
        entry = file.create_dataset('empty', features.shape, np.float32)
        with pytest.raises(ValueError, match=r"f\.h5: entry '/empty' was never written"):
            inferencer.encode(entry, duration=24.0)
    assert inferencer(f'{path}::scene', SENTENCES) == expected
    assert inferencer(f'{path}::nested/c3d', SENTENCES, 24.0) == expected
    with pytest.raises(ValueError, match=r"'absent' is not in the features"):
        inferencer(f'{path}::absent', SENTENCES)
    with pytest.raises(FileNotFoundError, match=r'none\.h5 do not exist'):
        inferencer(f'{tmp_path}/none.h5::scene', SENTENCES)


def test_features_of_another_extractor_than_the_trainings_are_refused(
    grounder, features, expected, tmp_path
):
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
    assert inferencer(features, SENTENCES, 24.0) == expected  # an array does not tell
    assert inferencer(f'{path}::same', SENTENCES) == expected
    inferencer.save_pretrained(tmp_path / 'folder')
    again = GroundingInferencer.from_pretrained(tmp_path / 'folder', device='cpu')
    with pytest.raises(ValueError, match=r'folder and .* do not belong together'):
        again(f'{path}::other', SENTENCES)
    inferencer.config.extractor.stride = 12
    for _ in range(2):  # what is refused is not kept either
        with pytest.raises(ValueError, match=r"the config's extractor \(Grid.*stride 6, here 12"):
            inferencer(grounder.video, SENTENCES)


def test_relative_names_with_colons_are_files(grounder, features, expected, tmp_path, monkeypatch):
    (tmp_path / 'file:').mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ('file:/a:1', 'http:2'):
        for suffix, path in (
            ('.py', grounder.config),
            ('.pth', grounder.checkpoint),
            ('.mp4', grounder.video),
        ):
            shutil.copy(path, f'{name}{suffix}')
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


@pytest.mark.parametrize(
    ('video', 'options', 'message'),
    [
        (io.StringIO('text'), {}, 'binary mode'),
        (io.BytesIO(), {}, 'is empty'),
        (io.BytesIO(b'no video' * 100), {}, 'cannot be decoded'),
        ('absent.mp4', {}, r'absent\.mp4: no such file'),
        ({'a': 1}, {}, 'a dict is neither'),
        (object(), {}, 'a object is neither'),
        (np.zeros((4, 8, 8, 3), np.uint8), {}, 'fps='),
        (np.zeros((4, 8, 8, 3), np.float32), dict(fps=8), 'uint8, RGB'),
        (np.zeros((4, 3, 8, 8), np.uint8), dict(fps=8), 'uint8, RGB'),
        (np.zeros((0, 8, 8, 3), np.uint8), dict(fps=8), 'uint8, RGB'),
        (np.zeros((8, 8, 3), np.uint8), {}, 'frames are'),
        (np.ones(GRID_SIZE), dict(duration=10.0), 'shape'),
        (np.ones((0, GRID_SIZE)), dict(duration=10.0), 'shape'),
        (
            np.ones((5, 7)),
            dict(duration=10.0),
            f'kitchen have size 7, .*in_channels is {GRID_SIZE}',
        ),
        (np.diag([np.nan] * GRID_SIZE), dict(duration=10.0), 'NaN'),
        (np.ones((3, GRID_SIZE)), {}, 'duration'),
    ],
)
def test_what_is_of_no_use_is_refused(inferencer, video, options, message):
    kind = VideoReadError if message.endswith(('decoded', 'file')) else ValueError
    with pytest.raises(kind, match=message):
        inferencer.encode(video, video_id='kitchen', **options)
