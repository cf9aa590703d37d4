"""Frames and boxes of tubes in videos of any rate and orientation: answers and pictures."""

import json
from unittest import mock

import numpy as np
import pytest
from helpers.counted_videos import COUNT, LENGTH, TIMES, numbers, spoil, write
from helpers.made_up_tubes import write_asked_config
from helpers.tiny_grounder import save_checkpoint

from mmn_plugin.apis import TubeGroundingInferencer
from mmn_plugin.datasets import TubeError, TubeVideo, read_tracks, write_tube_file
from mmn_plugin.features import probe_video, read_pictures
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
def inferencer(tmp_path_factory):
    """A model with random weights whose features are those of the built-in extractor."""
    folder = tmp_path_factory.mktemp('asked')
    config = write_asked_config(folder)
    return TubeGroundingInferencer(config, save_checkpoint(config, folder / 'tiny.pth'), 'cpu')


@pytest.mark.parametrize('name', SHAPES)
def test_boxes_of_the_tracker_lie_where_the_object_is(inferencer, videos, name):
    [answer] = inferencer(videos[name], 'a red box')
    frames = answer['tube'][:, 0].astype(int)
    assert frames[-1] - frames[0] == len(frames) - 1
    np.testing.assert_allclose(answer['tube'], BOXES[frames], atol=1e-4)
    times = np.append(UNEVEN if name == 'uneven' else TIMES, probe_video(videos[name]).duration)
    np.testing.assert_allclose(answer['span'], times[[frames[0], frames[-1] + 1]], atol=1e-3)


def test_a_track_means_the_same_pictures_at_any_rate(inferencer, videos):
    tubes = [BOXES[5:70], BOXES[20:40] + np.float32([0, 5, 5, 5, 5]), BOXES[10:30]]
    plain, uneven = (
        [inferencer(videos[name], sentence, tubes)[0] for sentence in SENTENCES]
        for name in ('plain', 'uneven')
    )
    for one, other in zip(plain, uneven, strict=True):
        assert one['score'] == other['score']
        np.testing.assert_array_equal(one['tube'], other['tube'])
        first, last = one['tube'][[0, -1], 0].astype(int)
        np.testing.assert_allclose(one['span'], [TIMES[first], TIMES[last] + 0.1], atol=1e-3)
        np.testing.assert_allclose(other['span'], UNEVEN[[first, last + 1]], atol=1e-3)


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


MISFITS = {
    'frame 80, but the video has 80 pictures, 0 to 79': TubeVideo(
        '', [], [], [BOXES, BOXES + np.float32([1, 0, 0, 0, 0])]
    ),
    'tube 0: all its boxes lie outside the pictures, which are 64 x 48': TubeVideo(
        '', [], [], [BOXES[:9] + np.float32([0, 64, 0, 64, 0])]
    ),
    'box in frame -3; frames are counted from 0': TubeVideo(
        '', [], [], [BOXES - np.float32([3, 0, 0, 0, 0])]
    ),
    'video of fps 5, but it has 10': TubeVideo('', [], [], [BOXES[:40]], {}, dict(fps=5)),
    'video of num_frames 40, but it has 80': TubeVideo(
        '', [], [], [BOXES[:40]], {}, dict(num_frames=40)
    ),
    'video of width 48, but it has 64': TubeVideo(
        '', [], [], [BOXES], {}, dict(fps=10, width=48, height=64)
    ),
}


@pytest.mark.parametrize('message', MISFITS)
def test_tubes_of_another_video_are_refused(inferencer, videos, message):
    with pytest.raises(TubeError, match=message) as error:
        inferencer(videos['plain'], 'a red box', MISFITS[message])
    assert 'plain.mkv' in str(error.value)


def test_pictures_of_frames_that_a_video_lacks_are_refused(videos, tmp_path):
    late = BOXES + np.float32([5, 0, 0, 0, 0])
    for draw in (
        lambda: draw_tube_frames(videos['plain'], '', BOXES, late),
        lambda: write_tube_video(videos['plain'], tmp_path / 'x.mp4', '', late),
    ):
        with pytest.raises(TubeError, match=r'plain\.mkv has a box in frame 84, but'):
            draw()
    assert not list(tmp_path.iterdir())


def test_tracks_that_end_long_before_the_video_are_warned_of(inferencer, videos):
    with mock.patch('mmn_plugin.datasets.tube_file.print_log') as told:
        for tubes in (
            [BOXES],
            [BOXES[:39], BOXES[:41]],
            [],
            TubeVideo('', [], [], [BOXES[:20]], {}, dict(num_frames=80)),
        ):
            inferencer(videos['plain'], 'a red box', tubes)
        assert not told.called
        inferencer(videos['plain'], 'a red box', [BOXES[:20]])
    assert 'end at frame 19 of 80' in told.call_args[0][0]


def test_a_rate_is_not_compared_where_it_varies(inferencer, videos):
    tubes = TubeVideo('', [], [], [BOXES], {}, dict(fps=30, num_frames=COUNT))
    assert inferencer(videos['uneven'], 'a red box', tubes)[0]['span']


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
    for content in (
        dict(fps=25),
        dict(tracks=[], rate=25),
        dict(tracks=[], fps='25'),
        dict(tracks=[], fps=0),
    ):
        path.write_text(json.dumps({'plain': content}))
        with pytest.raises(TubeError, match=r"'plain' is neither a list of tracks nor"):
            read_tracks(path, 'plain.mkv')
