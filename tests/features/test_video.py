"""One length and one clock, whatever a container says: reader, probe, thumbnails, clips, sound."""

import os
from multiprocessing import get_context

import av
import h5py
import numpy as np
import pytest
from helpers.counted_videos import (
    COUNT,
    FPS,
    LENGTH,
    TIMES,
    copy_without,
    hide,
    lie_avi,
    lie_matroska,
    numbers,
    spoil,
    write,
)

from mmn_plugin.apis.video_input import VideoFeatures
from mmn_plugin.features import (
    RGBVideoReader,
    VideoLimitError,
    VideoReadError,
    cut_clip,
    extract_videos,
    probe_video,
    read_pictures,
    sample_frames,
)
from mmn_plugin.shapes import GridFeatureExtractor

FAULTS = (
    'original.mp4',
    'audio27.webm',
    'audio48.mkv',
    'gop80.ts',
    'live.webm',
    'start09.mkv',
    'start15.mkv',
)
CLIPS = ((0.0, 2.0), (7.5, 15.0), (20.2, 24.0))
PAUSES = np.cumsum(np.where(np.arange(COUNT) % 8, 0.05, 0.5)) - 0.5  # 4.45 s in all


def pictures_of(path):
    return np.stack([picture for _, picture in read_pictures(path)]).astype(int)


@pytest.fixture(scope='module')
def answers(shared, tmp_path_factory):
    """All that is made of a video, by its name."""
    folder, made = tmp_path_factory.mktemp('clips'), {}

    def make(name):
        if name not in made:
            path = shared / 'media' / 'faults' / name
            clips = []
            for start, end in CLIPS:
                cut_clip(path, start, end, folder / 'clip.mp4')
                clips.append(pictures_of(folder / 'clip.mp4'))
            made[name] = (
                probe_video(path),
                VideoFeatures.of(path, GridFeatureExtractor),
                clips,
                sample_frames(path).astype(int),
            )
        return made[name]

    return make


@pytest.mark.parametrize('name', FAULTS)
def test_a_faulty_container_is_answered_as_the_original(answers, name):
    info, features, clips, thumbnails = answers(name)
    right, right_features, right_clips, right_thumbnails = answers('original.mp4')
    assert info.duration == features.duration == right.duration == 24.0
    np.testing.assert_allclose(info.times, right.times, atol=1e-9)
    assert info.notes == {}
    assert features.values.shape == right_features.values.shape
    assert abs(features.values - right_features.values).mean() < 0.02  # rows differ by 0.2
    for clip, right_clip in zip(clips, right_clips, strict=True):
        assert clip.shape == right_clip.shape
        assert abs(clip - right_clip).mean((1, 2, 3)).max() < 2  # pictures 1 s apart differ by 5
    assert abs(thumbnails - right_thumbnails).mean((1, 2, 3)).max() < 2


def _mid(path):
    write(path.with_name('whole.ts'), g='8', sc_threshold='0')
    copy_without(path, path.with_name('whole.ts'), 2)


SOUND = ('aac', 14.0)
HIDDEN = 20, 50
# name -> (writer, numbers of its pictures, their times or None for an even rate)
VIDEOS = {
    'plain.mp4': write,
    'sound.mp4': lambda path: write(path, sound=SOUND),
    'sound.mov': lambda path: write(path, sound=SOUND),
    'sound.webm': lambda path: write(path, codec='libvpx', sound=('libopus', 14.0)),
    'sound.avi': lambda path: write(path, codec='mpeg4', sound=('pcm_s16le', 14.0)),
    'sound.flv': lambda path: write(path, sound=SOUND),
    'sound.ts': lambda path: write(path, sound=SOUND, g='60'),
    'text.mkv': lambda path: write(path, text=14.0),
    'late.mp4': lambda path: write(path, TIMES + 5),
    'late.mkv': lambda path: write(path, TIMES + 2.5, sound=SOUND),
    'late.ts': lambda path: write(path, TIMES + 5, g='60'),
    'short.avi': lambda path: lie_avi(path, 5, codec='mpeg4'),
    'long.avi': lambda path: lie_avi(path, 800, codec='mpeg4'),
    'short.mkv': lambda path: lie_matroska(path, 1.0),
    'long.mkv': lambda path: lie_matroska(path, 100.0),
    'b_frames.mp4': lambda path: write(path, bf='3'),
    'b_frames.avi': lambda path: write(path, bf='3'),
    'mpeg4_b_frames.avi': lambda path: write(path, codec='mpeg4', bf='2', g='20'),
    'b_frames.flv': lambda path: write(path, bf='3'),
    'b_frames.ts': lambda path: write(path, bf='3', g='50'),
    'open_groups.ts': lambda path: write(path, bf='3', g='20', **{'x264-params': 'open-gop=1'}),
    'open_groups.mkv': lambda path: write(path, bf='3', g='20', **{'x264-params': 'open-gop=1'}),
    'one_key_frame.mkv': lambda path: write(path, g='900'),
    'live.webm': lambda path: write(path, codec='libvpx', container=dict(live='1'), g='60'),
    'rotated.mp4': lambda path: write(path, rotation=90),
    'raw.h264': lambda path: write(path, bf='3'),
    'raw.m4v': lambda path: write(path, codec='mpeg4', form='m4v'),
    'plain.mpg': lambda path: write(path, codec='mpeg4', form='mpeg'),
    'plain.wmv': lambda path: write(path, codec='wmv2'),
    'pauses.mkv': lambda path: write(path, PAUSES),
    'pauses.mp4': lambda path: write(path, PAUSES),
    'edit_list.mp4': lambda path: write(
        path, TIMES - 0.8, container=dict(avoid_negative_ts='disabled')
    ),
    'begins_between_key_frames.ts': _mid,
    'hidden.webm': lambda path: hide(path, *HIDDEN),
}


@pytest.fixture(scope='module', params=VIDEOS)
def video(request, tmp_path_factory):
    """Path, and the numbers and times of the pictures that are in it."""
    path = tmp_path_factory.mktemp('video') / request.param
    VIDEOS[request.param](path)
    if 'pauses' in request.param:
        return path, np.arange(COUNT), PAUSES
    if 'hidden' in request.param:
        return path, np.delete(np.arange(COUNT), HIDDEN), np.delete(TIMES, HIDDEN)
    first = 8 if request.param in ('edit_list.mp4', 'begins_between_key_frames.ts') else 0
    return path, np.arange(first, COUNT), TIMES[: COUNT - first]


def shown(video, moments):
    _, present, times = video
    return present[np.searchsorted(times, np.asarray(moments) + 1e-3, side='right') - 1]


def test_the_length_reaches_from_the_first_picture_to_the_end_of_the_last(video):
    path, present, times = video
    info = probe_video(path)
    np.testing.assert_allclose(info.times, times, atol=6e-4)
    last = 1 / FPS if 'pauses' not in path.name else info.duration - times[-1]
    assert info.duration == pytest.approx(times[-1] + last, abs=1e-3)
    assert 0.05 <= last <= 0.5
    assert (info.width, info.height) == ((48, 64) if 'rotated' in path.name else (64, 48))
    assert info.rate == pytest.approx((len(present) - 1) / times[-1], rel=1e-2)


def test_the_reader_gives_out_what_is_shown_at_each_time(video):
    reader = RGBVideoReader(video[0], 2 * FPS)
    found = numbers(list(reader))
    assert len(found) == pytest.approx(2 * FPS * probe_video(video[0]).duration, abs=1)
    np.testing.assert_array_equal(found, shown(video, np.arange(len(found)) / (2 * FPS)))
    info = probe_video(video[0])
    assert info.notes.items() <= reader.notes.items()
    assert ('wrong duration' in info.notes) == (video[0].name.split('.')[0] in ('short', 'long'))


def test_the_reader_gives_out_each_picture_once_in_its_place(video):
    reader = RGBVideoReader(video[0], None, probe_video(video[0]).times)
    np.testing.assert_array_equal(numbers(list(reader)), video[1])


def test_a_picture_that_cannot_be_decoded_keeps_its_place(tmp_path):
    spoil(tmp_path / 'v.mkv', 17, 40)
    info = probe_video(tmp_path / 'v.mkv')
    reader = RGBVideoReader(tmp_path / 'v.mkv', None, info.times)
    expected = np.arange(COUNT)
    expected[[17, 40]] -= 1
    np.testing.assert_array_equal(numbers(list(reader)), expected)
    assert reader.notes['damaged packets'].startswith('2 of 80')


def test_thumbnails_show_the_middle_of_equal_parts(video):
    found = numbers(sample_frames(video[0], 9, 48))
    moments = (np.arange(9) + 0.5) / 9 * probe_video(video[0]).duration
    np.testing.assert_array_equal(found, shown(video, moments))
    found = numbers(sample_frames(video[0], 4, 48, (1.0, 3.0)))
    np.testing.assert_array_equal(found, shown(video, np.array([1.25, 1.75, 2.25, 2.75])))


@pytest.mark.parametrize(('start', 'end'), [(0.0, 1.0), (3.1, 4.2), (0.23, 0.47)])
def test_a_clip_holds_the_pictures_of_its_time(video, tmp_path, start, end):
    cut_clip(video[0], start, end, tmp_path / 'clip.mp4')
    times = np.array([start, *(t for t in video[2] if start + 1e-3 < t < end - 2e-3)])
    info = probe_video(tmp_path / 'clip.mp4')
    np.testing.assert_allclose(info.times, times - start, atol=1e-3)
    assert info.duration == pytest.approx(end - start, abs=2e-3)
    found = numbers(pictures_of(tmp_path / 'clip.mp4'))
    np.testing.assert_array_equal(found, shown(video, times))


def test_raw_streams_are_the_same_in_extraction_and_inference(tmp_path):
    for name in ('raw.h264', 'late.ts'):
        VIDEOS[name](tmp_path / name)
    assert not extract_videos(GridFeatureExtractor(), [tmp_path], tmp_path / 'f.h5', 0).failures
    with h5py.File(tmp_path / 'f.h5') as file:
        assert set(file) == {'raw', 'late'}
        for name in ('raw.h264', 'late.ts'):
            found = VideoFeatures.of(tmp_path / name, GridFeatureExtractor)
            assert found.duration == LENGTH
            np.testing.assert_array_equal(found.values, file[name.partition('.')[0]])


def test_the_sound_of_a_clip_is_that_of_its_pictures(tmp_path):
    write(tmp_path / 'late.mkv', TIMES + 2.5, sound=SOUND)  # pictures of 3 s are shown at 5.5 s
    cut_clip(tmp_path / 'late.mkv', 3.0, 5.0, tmp_path / 'clip.mp4')
    with av.open(str(tmp_path / 'clip.mp4')) as clip:
        pieces = [(piece.time, np.abs(piece.to_ndarray()).max()) for piece in clip.decode(audio=0)]
    for time, amplitude in pieces[5:-2]:
        assert 20 * amplitude == pytest.approx(5.5 + time, abs=0.1)
    assert pieces[-1][0] == pytest.approx(2.0, abs=0.1)


def test_files_joined_byte_by_byte_are_named_rather_than_told_wrong(tmp_path):
    write(tmp_path / 'one.ts', g='20')
    (tmp_path / 'two.ts').write_bytes(2 * (tmp_path / 'one.ts').read_bytes())
    for read in (probe_video, sample_frames, lambda path: list(RGBVideoReader(path, 8.0))):
        with pytest.raises(VideoReadError, match=r'two\.ts: its time stamps go back by 7\.\d s'):
            read(tmp_path / 'two.ts')


def test_a_name_may_hold_what_ffmpeg_takes_for_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / 'plain.mp4')
    for name in ('day 1: talk.mp4', os.fsdecode(b'caf\xe9.mp4')):
        os.rename('plain.mp4', name)
        assert probe_video(name).duration == LENGTH
        cut_clip(name, 1.0, 2.0, 'file:clip.mp4')
        assert probe_video('file:clip.mp4').duration == 1.0
        os.rename(name, 'plain.mp4')


def test_limits_are_kept_before_a_picture_is_decoded(tmp_path):
    write(tmp_path / 'v.mp4')
    assert probe_video(tmp_path / 'v.mp4', max_pixels=64 * 48).duration == LENGTH
    with pytest.raises(VideoLimitError, match=r'v\.mp4: its pictures have 64 x 48 pixels; at most'):
        probe_video(tmp_path / 'v.mp4', max_pixels=64 * 48 - 1)
    reader = RGBVideoReader(tmp_path / 'v.mp4', FPS)
    reader.max_pixels = 100
    with pytest.raises(VideoLimitError, match='at most 100 pixels'):
        next(iter(reader))
    with pytest.raises(VideoLimitError, match='it takes longer than 0 s'):
        probe_video(tmp_path / 'v.mp4', timeout=0.0)


def test_a_process_forked_while_a_video_is_read_can_let_go_of_it(tmp_path):
    def leave():
        held.clear()
        os._exit(7)

    write(tmp_path / 'v.mp4')
    held = [iter(RGBVideoReader(tmp_path / 'v.mp4', 8.0))]
    next(held[0])
    process = get_context('fork').Process(target=leave)
    process.start()
    process.join(600)
    process.kill()
    process.join()
    assert process.exitcode == 7
