"""Chapters and clips; what a clip holds is in the tests of videos."""

import pytest
from helpers.counted_videos import write

from mmn_plugin.features import VideoReadError, cut_clip, webvtt


def test_chapters_are_in_order_of_time_and_escaped():
    text = webvtt([(59.9999, 3723.0004, 'b --> <c> & d\n\n e'), (0.0, 2.25, 'a')])
    assert text == (
        'WEBVTT\n\n1\n00:00:00.000 --> 00:00:02.250\na\n\n'
        '2\n00:01:00.000 --> 01:02:03.000\nb --&gt; &lt;c&gt; &amp; d e\n'
    )
    assert webvtt([]) == 'WEBVTT\n'


def test_what_cannot_be_cut_is_named_and_leaves_nothing(tmp_path):
    write(tmp_path / 'v.mp4')
    (tmp_path / 'bad.mp4').write_bytes(b'x' * 100)
    with pytest.raises(VideoReadError, match=r'bad\.mp4: cannot be decoded'):
        cut_clip(tmp_path / 'bad.mp4', 0, 1, tmp_path / 'c.mp4')
    with pytest.raises(VideoReadError, match='has no frame from 20 to 21 s'):
        cut_clip(tmp_path / 'v.mp4', 20.0, 21.0, tmp_path / 'c.mp4')
    assert {path.name for path in tmp_path.iterdir()} == {'bad.mp4', 'v.mp4'}
