"""Tubes: trained and asked through the tools, in videos of any rate and orientation."""

import json
import os
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from helpers.counted_videos import COUNT, LENGTH, TIMES, numbers, spoil, write
from helpers.made_up_tubes import write_asked_config, write_tube_config, write_tubes
from helpers.run_tool import output_of
from helpers.tiny_grounder import save_checkpoint
from reference.golden_file import GoldenFile

from mmn_plugin.apis import TubeGroundingInferencer
from mmn_plugin.datasets import TubeError, TubeVideo, read_tracks, write_tube_file
from mmn_plugin.features import probe_video, read_pictures
from mmn_plugin.shapes.features import TubeFeatureExtractor
from mmn_plugin.visualization.tubes import draw_tube_frames, write_tube_video

SHAPES = dict(plain=(48, 64), uneven=(48, 64), rotated=(64, 48))
UNEVEN = TIMES**2 / LENGTH  # ever longer intervals
SENTENCES = ['a red box', 'the blue door']


def corner(number: int) -> int:
    """Left and upper edge of the square in a picture: it steps along the diagonal."""
    return 6 * (number // 20)


def upright(number: int, shape: tuple[int, int]) -> np.ndarray:
    """A red square, 24 pixels wide and 18 high, on gray."""
    picture = np.full((*shape, 3), 90, np.uint8)
    at = corner(number)
    picture[at : at + 18, at : at + 24] = 200, 30, 30
    return picture


BOXES = np.array(
    [[k, corner(k), corner(k), corner(k) + 23, corner(k) + 17] for k in range(COUNT)], np.float32
)


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """The same pictures at an even rate, at an uneven one, and turned by a note of the file."""
    folder = tmp_path_factory.mktemp('videos')
    write(folder / 'plain.mkv', paint=lambda k: upright(k, SHAPES['plain']), crf='0')
    write(folder / 'uneven.mkv', UNEVEN, paint=lambda k: upright(k, SHAPES['plain']), crf='0')
    write(
        folder / 'rotated.mp4',
        rotation=90,
        crf='0',
        paint=lambda k: np.ascontiguousarray(np.rot90(upright(k, SHAPES['rotated']), -1)),
    )
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope='module')
def asked(tmp_path_factory):
    """A model with random weights whose features are those of the built-in extractor."""
    folder = tmp_path_factory.mktemp('asked')
    config = write_asked_config(folder)
    return SimpleNamespace(config=config, checkpoint=save_checkpoint(config, folder / 'tiny.pth'))


@pytest.fixture
def inferencer(asked):
    return TubeGroundingInferencer(asked.config, asked.checkpoint, 'cpu')


def test_the_standalone_scorer_finds_the_figures_of_a_test_after_training(tmp_path):
    corpus = write_tubes(tmp_path / 'corpus')
    config = write_tube_config(tmp_path / 'tiny.py', corpus)
    output_of('train.py', config, '--work-dir', tmp_path / 'run')
    [checkpoint] = (tmp_path / 'run').glob('best_tubes_m_vIoU_epoch_1.pth')
    options = ('--work-dir', tmp_path / 'test', '--submission', tmp_path / 'answers.json')
    output_of('test.py', config, checkpoint, *options)
    answers = json.loads((tmp_path / 'answers.json').read_text())
    assert len(answers) == 5
    assert answers['test_2'] == dict(st_frame=-1, ed_frame=-1, bbox={})  # it has no tube
    one = answers['test_0']
    assert list(map(int, one['bbox'])) == list(range(one['st_frame'], one['ed_frame'] + 1))
    figures = json.loads(next(tmp_path.glob('test/*/*.json')).read_text().splitlines()[-1])
    scores = tmp_path / 'scores.json'
    output_of('mmn eval', tmp_path / 'answers.json', corpus / 'test.h5', '--json', scores)
    for name, value in json.loads(scores.read_text()).items():
        assert figures[name] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize('name', SHAPES)
def test_boxes_of_the_tracker_lie_where_the_object_is(inferencer, videos, name):
    answers = inferencer(videos[name], SENTENCES)
    assert [answer['sentence'] for answer in answers] == SENTENCES
    times = np.append(UNEVEN if name == 'uneven' else TIMES, probe_video(videos[name]).duration)
    for answer in answers:
        frames = answer['tube'][:, 0].astype(int)
        assert frames[-1] - frames[0] == len(frames) - 1
        np.testing.assert_allclose(answer['tube'], BOXES[frames], atol=1e-4)
        np.testing.assert_allclose(answer['span'], times[[frames[0], frames[-1] + 1]], atol=1e-3)


def test_paths_of_all_kinds_are_taken_and_bad_sentences_refused(asked, inferencer, videos):
    expected = inferencer(videos['plain'], SENTENCES)
    again = TubeGroundingInferencer(os.fsencode(asked.config), os.fsencode(asked.checkpoint), 'cpu')
    for video in (os.fsencode(videos['plain']), np.array(str(videos['plain']))):
        found = again(video, np.array(SENTENCES))
        assert [answer['span'] for answer in found] == [answer['span'] for answer in expected]
    with pytest.raises(ValueError, match=r"holds '\\ud83d', which is no character"):
        inferencer(videos['plain'], ['a red \ud83d box'])
    with pytest.raises(ValueError, match='is empty; say what to look for'):
        inferencer(videos['plain'], [' '])


def test_a_track_means_the_same_pictures_at_any_rate(inferencer, videos):
    tubes = [BOXES[5:70], BOXES[20:40] + np.float32([0, 5, 5, 5, 5]), BOXES[10:30]]
    plain, uneven = (inferencer(videos[name], SENTENCES, tubes) for name in ('plain', 'uneven'))
    for one, other in zip(plain, uneven, strict=True):
        assert one['score'] == other['score']
        np.testing.assert_array_equal(one['tube'], other['tube'])
        first, last = one['tube'][[0, -1], 0].astype(int)
        np.testing.assert_allclose(one['span'], [TIMES[first], TIMES[last] + 0.1], atol=1e-3)
        np.testing.assert_allclose(other['span'], UNEVEN[[first, last + 1]], atol=1e-3)


def test_a_video_without_tubes_has_no_answer_and_tubes_without_a_meaning_are_refused(
    inferencer, videos
):
    [answer] = inferencer(videos['plain'], 'a red box', [])
    assert (len(answer['tube']), answer['span'], answer['tube_index']) == (0, None, -1)
    with pytest.raises(TubeError, match='tube 0'):
        inferencer(videos['plain'], 'a red box', [BOXES[::-1]])
    with pytest.raises(TubeError, match=r"no features 'appearance'.*it has \['csn'\]"):
        inferencer.ground(TubeVideo('a', ['a red box'], [], [BOXES], dict(csn=[BOXES])))


def test_features_of_a_tube_file_are_used_and_need_no_extractor(inferencer, videos, tmp_path):
    tubes, rng = [BOXES[:40], BOXES[:60]], np.random.default_rng(0)
    features = {
        stream: [rng.random((5, size), np.float32) for _ in tubes]
        for stream, size in TubeFeatureExtractor.sizes.items()
    }
    video = TubeVideo('plain', ['not asked for'], [], tubes, features)
    write_tube_file(tmp_path / 'x.h5', [video])
    found = read_tracks(tmp_path / 'x.h5', 'plain.mkv', inferencer.streams)
    for name in ('extractor', 'tracker'):
        inferencer.config.pop(name)
    [answer] = inferencer(videos['plain'], 'a red box', found)
    video.sentences = ['a red box']
    assert answer['score'] == float(inferencer.ground(video).pred_instances.scores[0])
    assert read_tracks(tmp_path / 'x.h5', 'plain.mkv', ['flow', 'csn']).features == {}
    assert inferencer(videos['plain'], 'a red box', [])[0]['tube_index'] == -1
    with pytest.raises(ValueError, match='the config has no `extractor`'):
        inferencer(videos['plain'], 'a red box', tubes)
    with pytest.raises(TubeError, match=r"no video 'other\.mp4'; it has plain"):
        read_tracks(tmp_path / 'x.h5', 'other.mp4')


MISFITS = {
    'frame 80, but the video has 80 pictures, 0 to 79': [
        BOXES,
        BOXES + np.float32([1, 0, 0, 0, 0]),
    ],
    'tube 0: all its boxes lie outside the pictures, which are 64 x 48': [
        BOXES[:9] + np.float32([0, 64, 0, 64, 0])
    ],
    'its frames are not whole numbers that rise from 0 on': [BOXES - np.float32([3, 0, 0, 0, 0])],
    'video of fps 5, but it has 10': dict(fps=5),
    'video of num_frames 40, but it has 80': dict(num_frames=40),
    'video of width 48, but it has 64': dict(fps=10, width=48, height=64),
}


@pytest.mark.parametrize('message', MISFITS)
def test_tubes_of_another_video_are_refused(inferencer, videos, message):
    tubes = MISFITS[message]
    if isinstance(tubes, dict):  # what the tracker saw
        tubes = TubeVideo('', [], [], [BOXES[:40]], {}, tubes)
    with pytest.raises(TubeError, match=message) as error:
        inferencer(videos['plain'], 'a red box', tubes)
    assert 'plain.mkv' in str(error.value)


def test_tracks_that_may_be_of_another_video_are_warned_of(inferencer, videos):
    with mock.patch('mmn_plugin.datasets.tube_file.print_log') as told:
        for tubes in (
            [BOXES],
            [BOXES[:39], BOXES[:41]],
            [],
            TubeVideo('', [], [], [BOXES[:20]], {}, dict(num_frames=80)),
        ):
            inferencer(videos['plain'], 'a red box', tubes)
        varying = TubeVideo('', [], [], [BOXES], {}, dict(fps=30, num_frames=COUNT))
        assert inferencer(videos['uneven'], 'a red box', varying)[0]['span']  # no rate to compare
        assert not told.called
        inferencer(videos['plain'], 'a red box', [BOXES[:20]])
    assert 'end at frame 19 of 80' in told.call_args[0][0]


def test_a_track_file_tells_what_the_tracker_saw(tmp_path, videos):
    path, source = tmp_path / 'tracks.json', dict(fps=25.0, num_frames=100, width=64, height=48)
    path.write_text(json.dumps({'plain': dict(tracks=[BOXES.tolist()], **source)}))
    video = read_tracks(path, 'plain.mkv')
    assert video.source == source
    np.testing.assert_array_equal(video.tubes[0], BOXES)
    with pytest.raises(TubeError, match='fps 25, but it has 10'):
        video.check_video('plain.mkv', probe_video(videos['plain']))
    video.sentences = ['a red box']
    write_tube_file(tmp_path / 'tracks.h5', [video])
    assert read_tracks(tmp_path / 'tracks.h5', 'plain.mkv').source == source


NEITHER = "'plain' is neither a list of tracks nor"


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('[]', 'not a JSON object'),
        ('{"a": []}', "no video 'plain.mkv'"),
        ('x', 'not a JSON file'),
        (f'{{"plain": [[[1{400 * "0"}, 1, 1, 2, 2]]]}}', 'track 0 is not a list'),
        ('{"plain": [[[1, 2]]]}', 'track 0'),
        ('{"plain": [5]}', 'track 0 is not a list'),
        ('{"plain": [[[1, 9, 9, 3, 3]]]}', 'ends before'),
        ('{"plain": {"fps": 25}}', NEITHER),
        ('{"plain": {"tracks": [], "rate": 25}}', NEITHER),
        ('{"plain": {"tracks": [], "fps": "25"}}', NEITHER),
        ('{"plain": {"tracks": [], "fps": 0}}', NEITHER),
    ],
)
def test_unfit_track_files_are_refused_by_name(tmp_path, content, message):
    (tmp_path / 'x.json').write_text(content)
    with pytest.raises(TubeError, match=message):
        read_tracks(tmp_path / 'x.json', 'plain.mkv')


def test_the_tool_writes_pictures_videos_and_answers_and_replaces_nothing(asked, videos, tmp_path):
    tracks, out = tmp_path / 'tracks.json', tmp_path / 'out'
    tracks.write_text(json.dumps({'plain': [[[*box.tolist(), 0.9] for box in BOXES[30:60]]]}))
    model = ('--config', asked.config, '--checkpoint', asked.checkpoint, '--device', 'cpu')
    question = (videos['plain'], 'a red box', '--tracks', tracks, '--out', out, *model)
    assert 'a red box: tube 0' in output_of('mmn ground', *question)
    names = {'plain_0.png', 'plain_0.mp4', 'plain_tubes.json'}
    assert {path.name for path in out.glob('[!.]*')} == names
    answer = json.loads((out / 'plain_tubes.json').read_text())['plain#0']
    assert 30 <= answer['st_frame'] <= answer['ed_frame'] < 60
    (out / 'plain_0.mp4').write_text('mine')
    output = output_of('mmn ground', *question, code=1)
    assert f'{out / "plain_0.mp4"} has been changed since it was written' in output
    assert (out / 'plain_0.mp4').read_text() == 'mine'


def red(picture):
    """Box of the red pixels within a picture, x1, y1, x2, y2."""
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    rows, columns = np.nonzero((red > 150) & (green < 80) & (blue < 80))
    return np.array([columns.min(), rows.min(), columns.max(), rows.max()])


@pytest.mark.parametrize('name', SHAPES)
def test_written_videos_show_every_picture_in_its_time_with_its_box(videos, tmp_path, name):
    write_tube_video(videos[name], tmp_path / 'out.mp4', 'a red box', BOXES)
    before, after = probe_video(videos[name]), probe_video(tmp_path / 'out.mp4')
    np.testing.assert_allclose(after.times, before.times, atol=1e-3)
    assert after.duration == pytest.approx(before.duration, abs=2e-3)
    for number, (_, picture) in enumerate(read_pictures(tmp_path / 'out.mp4')):
        # the frame of 3 pixels covers the object's edge, six times as large
        inside = 6 * np.add(BOXES[number, 1:], (0, 0, 1, 1)) + (3, 3, -4, -4)
        assert abs(red(picture) - inside).max() <= 6  # a pixel of the video


@pytest.mark.parametrize('name', SHAPES)
def test_drawn_frames_are_those_of_the_boxes(videos, name):
    scale = 6
    picture = draw_tube_frames(videos[name], 'a red box', BOXES[[7, 33, 78]], count=2)
    width = SHAPES[name][1] * scale
    assert len(picture) > SHAPES[name][0] * scale  # the caption is below
    for place, number in enumerate((7, 78)):
        cell = picture[: SHAPES[name][0] * scale, place * (width + 4) :][:, :width]
        rows, columns = np.nonzero((cell == [0x00, 0x72, 0xB2]).all(-1))
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        np.testing.assert_array_equal(found / scale - [0, 0, 1, 1], BOXES[number, 1:])
        assert abs(red(cell) - np.add(found, (3, 3, -4, -4))).max() <= scale


def test_boxes_without_a_video_are_drawn_on_gray():
    tubes = BOXES[:40], BOXES[20:] + np.float32([0, 1000, 0, 1000, 0])
    picture = draw_tube_frames(None, 'a red box', *tubes, count=4)
    for color in ([0x00, 0x72, 0xB2], [0xE6, 0x9F, 0x00], [224, 224, 224]):
        assert (picture == color).all(-1).any()
    assert picture.shape[1] <= 4 * (512 + 4)
    assert draw_tube_frames(None, 'nothing', BOXES[:0], BOXES[:0]).ndim == 3


def test_a_picture_that_cannot_be_decoded_shifts_no_frame(tmp_path):
    spoil(tmp_path / 'v.mkv', 17)
    write_tube_video(tmp_path / 'v.mkv', tmp_path / 'out.mp4', 'a red box', BOXES[:0])
    pictures = np.stack([picture[: 48 * 6] for _, picture in read_pictures(tmp_path / 'out.mp4')])
    np.testing.assert_array_equal(numbers(pictures), [*range(17), 16, *range(18, COUNT)])


def test_pictures_of_frames_that_a_video_lacks_are_refused(videos, tmp_path):
    late = BOXES + np.float32([5, 0, 0, 0, 0])
    for draw in (
        lambda: draw_tube_frames(videos['plain'], '', BOXES, late),
        lambda: write_tube_video(videos['plain'], tmp_path / 'x.mp4', '', late),
    ):
        with pytest.raises(TubeError, match=r'plain\.mkv has a box in frame 84, but'):
            draw()
    assert not list(tmp_path.iterdir())


def test_published_weights_with_layers_that_nothing_uses_are_converted(shared, tmp_path):
    state = GoldenFile(shared / 'golden/hcstvg_pool.npz').weights('state')
    assert 'featpool.fc1.weight' in state
    torch.save(dict(model=state), tmp_path / 'a.pth')
    tool = 'model_converters/mmn_to_mmengine.py'
    output_of(tool, tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert len(torch.load(tmp_path / 'b.pth')['state_dict']) == len(state) - 4
