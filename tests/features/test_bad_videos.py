"""What comes of videos with something wrong, read as the recognizers read them."""

import numpy as np
import pytest
from helpers.bad_videos import FPS, SECONDS, VIDEOS, encode, even, write_videos

from mmn_plugin.features import RGBVideoReader, VideoReadError, extract_videos
from mmn_plugin.features.video_stream import Timeline
from mmn_plugin.shapes import GridFeatureExtractor

RATE = 8
WHOLE = SECONDS * RATE


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_videos(tmp_path_factory.mktemp('bad') / 'videos')


def read(folder, name):
    reader = RGBVideoReader(folder / name, RATE)
    return np.stack(list(reader)), reader.notes


def brightness(frames):
    return frames[:, -8:, -8:].mean((1, 2, 3))


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('gone.mp4', 'no such file'),
        ('', 'is a folder; give a video file'),
        ('empty.mp4', r'is empty \(0 bytes\)'),
        ('text.mp4', 'cannot be decoded'),
        ('sound.mp4', 'no video stream .only audio'),
        ('cover.mp4', 'a cover picture and no video'),
        ('cut_index.mp4', 'cannot be decoded'),
        ('cut_pictures.mp4', r'cut off: its pictures end at 4\.\d s of 8\.0 s'),
        ('cut.mkv', r'cut off: its pictures end at 4\.\d s of 8\.0 s'),
        ('ruined.mp4', r'\d+ of 8\d packets are damaged'),
        ('leap.mkv', r'time stamps leap from 4\.0 s to 100004\.1 s'),
    ],
)
def test_what_cannot_be_used_is_named(folder, name, message):
    with pytest.raises(VideoReadError, match=f'{name}.*{message}'):
        read(folder, name)


@pytest.mark.parametrize('name', ['whole.mp4', 'long_sound.mkv', 'late.mp4', 'odd.mkv'])
def test_what_is_only_unusual_is_read_like_any_other(folder, name):
    frames, notes = read(folder, name)
    assert len(frames) == WHOLE
    assert notes == {}
    shown = np.floor(np.arange(WHOLE) / RATE * FPS + 1e-6) / (SECONDS * FPS)
    np.testing.assert_allclose(brightness(frames), 40 + 150 * shown, atol=14)


def test_a_few_damaged_packets_are_left_out_and_counted(folder):
    frames, notes = read(folder, 'scratched.mp4')
    assert len(frames) == WHOLE
    assert notes.keys() == {'damaged packets'}
    np.testing.assert_allclose(
        brightness(frames), brightness(read(folder, 'whole.mp4')[0]), atol=20
    )


def test_a_variable_frame_rate_is_followed_by_its_time_stamps(folder):
    frames, notes = read(folder, 'uneven.mp4')
    assert notes.keys() == {'variable frame rate'}
    times = np.arange(len(frames)) / RATE
    assert len(frames) == pytest.approx(WHOLE, abs=2)
    shown = np.where((times >= 1.95) & (times < 4), 1.95, times)  # the pause stands still
    np.testing.assert_allclose(brightness(frames), 40 + 150 * shown / SECONDS, atol=12)


@pytest.mark.parametrize(
    ('name', 'shape', 'corner'),
    [
        ('whole.mp4', (64, 96), (slice(4, 20), slice(4, 30))),
        # a phone turned to the right writes the upper left corner to the upper right
        ('upright.mp4', (96, 64), (slice(4, 30), slice(-20, -4))),
        ('flipped.mp4', (64, 96), (slice(-20, -4), slice(-30, -4))),
    ],
)
def test_a_rotated_video_is_turned_upright(folder, name, shape, corner):
    frames, notes = read(folder, name)
    assert frames.shape[1:3] == shape
    red = frames[0][corner].mean((0, 1))
    assert red[0] > 180
    assert red[1:].max() < 90
    assert list(notes) == ([] if name == 'whole.mp4' else ['rotated'])


def test_the_grid_extractor_turns_videos_too(folder):
    size = GridFeatureExtractor().num_features
    grids = {
        name: GridFeatureExtractor()(folder / name)[:, size - 48 : size - 32].reshape(-1, 4, 4)
        for name in ('whole.mp4', 'upright.mp4')
    }  # brightness
    np.testing.assert_allclose(
        np.rot90(grids['whole.mp4'], -1, (1, 2)), grids['upright.mp4'], atol=0.02
    )


def test_a_cut_off_stream_without_a_declared_length_gives_what_is_there(folder):
    frames, _ = read(folder, 'cut_ts.mpg')
    assert WHOLE // 3 < len(frames) < WHOLE


def test_a_single_picture_and_a_raw_stream_can_be_read(folder):
    assert len(read(folder, 'one.mp4')[0]) == 1
    frames, notes = read(folder, 'raw.m4v')
    assert notes == {'no time stamps': f'of {SECONDS * FPS} frames; taken to be 25.00 fps'}
    assert len(frames) == pytest.approx(SECONDS * FPS / 25 * RATE, abs=1)


def test_all_of_them_in_one_run_end_in_a_report(folder, tmp_path):
    report = extract_videos(GridFeatureExtractor(size=16), [folder], tmp_path / 'f.h5')
    failed = ['cover', 'cut', 'cut_index', 'cut_pictures', 'empty', 'leap']
    failed += ['ruined', 'sound', 'text']
    assert sorted(report.failures) == failed
    assert report.notes.keys() == {'cut_ts', 'flipped', 'raw', 'scratched', 'uneven', 'upright'}
    text = '\n'.join(report.lines())
    assert 'rotated, dealt with, in 2 of the videos: flipped (' in text
    assert '9 videos could not be read' in text
    assert str(folder / 'cut.mkv') in text
    again = extract_videos(GridFeatureExtractor(size=16), [folder], tmp_path / 'f.h5')
    assert again.failures == report.failures  # tried anew
    assert again.notes == {}  # of videos that need no work any more
    assert len(VIDEOS) == len(failed) + 11


def test_a_leap_past_the_declared_end_is_refused_but_a_long_pause_is_not():
    timeline = Timeline('v.mp4', 10.0, declared=2000.0, of_all=False)
    timeline.require_step(0.0, 1500.0)
    with pytest.raises(VideoReadError, match=r'leap from 1500\.0 s to 2100\.0 s'):
        timeline.require_step(1500.0, 2100.0)


def test_frames_that_are_not_shown_are_not_converted(tmp_path, monkeypatch):
    encode(tmp_path / 'v.mp4', list(even())[:30])
    converted = []
    convert = RGBVideoReader.convert
    monkeypatch.setattr(
        RGBVideoReader,
        'convert',
        lambda self, frame: converted.append(frame.time) or convert(self, frame),
    )
    frames = list(RGBVideoReader(tmp_path / 'v.mp4', 2.0))
    assert len(frames) == len(converted) == 6
