"""Real videos all the way: decoded, described, grounded, written."""

import json

import av
import h5py
import pytest
from helpers.run_tool import output_of
from helpers.tiny_extractors import write_recognizer
from helpers.tiny_grounder import GRID, GRID_SIZE, write_grounder
from matplotlib.image import imread

from mmn_plugin.apis import GroundingInferencer

VIDEOS = dict(arm_wrestling=10.0, basketball=10.0)  # seconds
SENTENCES = ['a person opens the door', 'a red box']


@pytest.fixture(scope='module', params=['grid', 'recognizer'])
def model(request, tmp_path_factory, shared):
    """A model with random weights, and the features of both videos by the tool."""
    folder, extractor, size = tmp_path_factory.mktemp(request.param), GRID, GRID_SIZE
    if request.param == 'recognizer':
        extractor, size = write_recognizer(folder), 32
    model = write_grounder(folder, size, extractor)
    model.features, model.size = folder / 'features.h5', size
    model.seconds_per_row = extractor['stride'] / extractor['fps']
    model.inferencer = GroundingInferencer(model.config, model.checkpoint, 'cpu')
    videos = [shared / 'media' / f'{name}.mp4' for name in VIDEOS]
    options = ('--config', model.config, '--out', model.features, '--workers', 0)
    output_of('mmn extract', *videos, *options)
    return model


@pytest.mark.parametrize('name', VIDEOS)
def test_everything_that_is_written_can_be_read_and_lies_in_the_video(
    model, shared, tmp_path, name
):
    with h5py.File(model.features) as file:
        assert set(file) == set(VIDEOS)
        rows = file[name][()]
    assert rows.shape[1] == model.size
    seconds = len(rows) * model.seconds_per_row
    assert seconds == pytest.approx(VIDEOS[name], abs=model.seconds_per_row)
    assert rows.std(axis=0).max() > 0  # not the same all the time

    given = ('--config', model.config, '--checkpoint', model.checkpoint, '--device', 'cpu')
    options = ('--out', tmp_path, '--clips', '1', '--top-n', '3')
    video = shared / 'media' / f'{name}.mp4'
    output = output_of('mmn ground', video, *SENTENCES, *given, *options)
    assert all(sentence in output for sentence in SENTENCES)
    ends = ('.json', '.vtt', '_timeline.png', '_map.png', '_1_1.mp4', '_2_1.mp4')
    assert {path.name for path in tmp_path.glob('[!.]*')} == {f'{name}{end}' for end in ends}

    found = json.loads((tmp_path / f'{name}.json').read_text())['videos'][name]
    assert found['duration'] == pytest.approx(VIDEOS[name], abs=0.1)
    expected = model.inferencer(f'{model.features}::{name}', SENTENCES, found['duration'])
    for got, answer in zip(found['sentences'], expected, strict=True):
        assert got['sentence'] == answer['sentence']
        for moment, other in zip(got['moments'], answer['moments'][:3], strict=True):
            assert moment == pytest.approx(other, abs=1e-3)  # the video is its features
            assert 0 <= moment[0] < moment[1] <= found['duration'] + 1e-3

    assert (tmp_path / f'{name}.vtt').read_text().count(' --> ') == 2
    for kind in ('timeline', 'map'):
        assert imread(tmp_path / f'{name}_{kind}.png')[..., :3].std() > 0.05  # not blank
    for i, sentence in enumerate(found['sentences'], 1):
        start, end = sentence['moments'][0]
        with av.open(str(tmp_path / f'{name}_{i}_1.mp4')) as clip:
            frames = sum(1 for _ in clip.decode(video=0))
            rate = float(clip.streams.video[0].average_rate)
        assert frames / rate == pytest.approx(end - start, abs=0.15)
