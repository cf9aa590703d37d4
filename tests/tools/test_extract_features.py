from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.run_tool import run_tool

from mmn_plugin.datasets.shapes.video_writer import write_video

TOOL = Path('data/extract_features.py')


@pytest.fixture
def video(tmp_path):
    write_video(tmp_path / 'good.mp4', np.full((24, 48, 32), 90, np.uint8), fps=8)
    return tmp_path / 'good.mp4'


def test_writes_features_of_files_and_says_their_size(video, tmp_path):
    code, output = run_tool(TOOL, video, '--out', tmp_path / 'new' / 'f.h5', '--stride', 4)
    assert code == 0, output
    assert '174 numbers per clip of 0.5 s' in output
    with h5py.File(tmp_path / 'new' / 'f.h5') as file:
        assert file['good'].shape == (6, 174)
        assert file['good'].attrs['stride'] == 4


def test_unreadable_videos_are_named_at_the_end(video, tmp_path):
    (tmp_path / 'bad.mp4').write_bytes(b'x' * 100)
    code, output = run_tool(TOOL, tmp_path, '--out', tmp_path / 'f.h5')
    assert code == 1
    assert '1 videos could not be read' in output
    assert str(tmp_path / 'bad.mp4') in output
    with h5py.File(tmp_path / 'f.h5') as file:
        assert list(file) == ['good']


@pytest.mark.parametrize(('arguments', 'message'), [
    (('--fps', 0), 'fps must be > 0'), (('--stride', 0), 'stride >= 1')])
def test_impossible_settings_are_one_clear_message(video, tmp_path, arguments, message):
    code, output = run_tool(TOOL, video, '--out', tmp_path / 'f.h5', *arguments)
    assert code == 1
    assert message in output
    assert 'Traceback' not in output


def test_a_negative_number_of_workers_is_refused_by_its_name(tmp_path):
    code, output = run_tool(TOOL, tmp_path, '--out', tmp_path / 'f.h5', '--workers', '-1')
    assert code == 2
    assert "argument --workers: '-1' is not a whole number" in output
