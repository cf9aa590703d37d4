"""Chapters and clips."""

from fractions import Fraction

import av
import numpy as np
import pytest

from mmn_plugin.features import VideoReadError, cut_clip, webvtt
from mmn_plugin.features.video_writing import time_stamp


def test_chapters_are_in_order_of_time_and_escaped():
    text = webvtt([(61.5, 3723.0004, 'b --> <c> & d\n\n e'), (0.0, 2.25, 'a')])
    assert text == (
        'WEBVTT\n\n1\n00:00:00.000 --> 00:00:02.250\na\n\n'
        '2\n00:01:01.500 --> 01:02:03.000\nb --&gt; &lt;c&gt; &amp; d e\n'
    )
    assert webvtt([]) == 'WEBVTT\n'
    assert time_stamp(59.9999) == '00:01:00.000'


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    """8 s of frames that grow brighter by 2 each, 15 a second, with a tone."""
    path = tmp_path_factory.mktemp('outputs') / 'v.mp4'
    with av.open(str(path), 'w') as container:
        pictures, sound = (
            container.add_stream('libx264', rate=15),
            container.add_stream('aac', rate=8000),
        )
        pictures.width, pictures.height, pictures.pix_fmt = 48, 32, 'yuv420p'
        pictures.options = dict(crf='1', g='60')
        sound.layout = 'mono'
        for i in range(120):
            frame = np.full((32, 48, 3), 2 * i, np.uint8)
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        tone = np.sin(np.arange(64000) / 5).astype(np.float32)[None]
        for first in range(0, 64000, 1000):
            part = av.AudioFrame.from_ndarray(tone[:, first : first + 1000], 'fltp', 'mono')
            part.rate, part.pts, part.time_base = 8000, first, Fraction(1, 8000)
            container.mux(sound.encode(part))
        container.mux(pictures.encode())
        container.mux(sound.encode())
    return path


@pytest.mark.parametrize(('start', 'end'), [(0.0, 2.0), (3.2, 5.6), (7.0, 8.0)])
def test_a_clip_holds_the_frames_and_the_sound_of_its_time(video, tmp_path, start, end):
    cut_clip(video, start, end, tmp_path / 'c.mp4')
    assert [path.name for path in tmp_path.iterdir()] == ['c.mp4']
    with av.open(str(tmp_path / 'c.mp4')) as clip:
        frames = [frame.to_ndarray(format='rgb24').mean() for frame in clip.decode(video=0)]
        sound = clip.streams.audio[0]
        assert float(sound.duration * sound.time_base) == pytest.approx(end - start, abs=0.3)
    assert len(frames) == pytest.approx(15 * (end - start), abs=1)
    assert frames[0] == pytest.approx(30 * start, abs=5)
    assert frames[-1] == pytest.approx(30 * end - 2, abs=5)


def test_what_cannot_be_cut_is_named_and_leaves_nothing(video, tmp_path):
    (tmp_path / 'bad.mp4').write_bytes(b'x' * 100)
    with pytest.raises(VideoReadError, match=r'bad\.mp4: cannot be decoded'):
        cut_clip(tmp_path / 'bad.mp4', 0, 1, tmp_path / 'c.mp4')
    with pytest.raises(VideoReadError, match='has no frame from 20 to 21 s'):
        cut_clip(video, 20.0, 21.0, tmp_path / 'c.mp4')
    assert [path.name for path in tmp_path.iterdir()] == ['bad.mp4']
