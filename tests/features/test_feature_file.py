"""Extraction with names that cannot be stored, replaced videos, and other runs at the same time."""

import json
import os
import shutil
import signal
from multiprocessing import get_context

import h5py
import numpy as np
import pytest
from helpers.processes import in_ranks

from mmn_plugin.features import ExtractionReport, FeatureFile, FeatureFileError, extract_videos
from mmn_plugin.locks import FileLock
from mmn_plugin.shapes import GridFeatureExtractor
from mmn_plugin.shapes.corpus import write_video


class Counting(GridFeatureExtractor):
    def __init__(self):
        super().__init__(size=16)
        self.seen = []

    def reader(self, video):
        self.seen.append(video.name)
        return super().reader(video)


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / 'videos'
    folder.mkdir()
    for i in range(2):
        write_video(folder / f'v{i}.mp4', np.full((12, 48, 32), 100 + i, np.uint8), fps=8)
    return folder


@pytest.fixture
def extract(videos, tmp_path):
    """Run an extraction; returns the names of the videos that were read, and the report."""

    def run(workers=0):
        extractor = Counting()
        report = extract_videos(extractor, [videos], tmp_path / 'f.h5', workers)
        return extractor.seen, report

    return run


def stored(path):
    with h5py.File(path) as file:
        return sorted(file)


def copy(video, name: bytes) -> None:
    shutil.copy(os.fsencode(video), os.path.join(os.fsencode(video.parent), name))


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        (b'caf\xe9.mp4', r'caf\xe9.mp4: its name holds bytes that are no UTF-8; rename it'),
        (b'..mp4', '..mp4: its name cannot be that of an entry; rename it'),
    ],
)
def test_a_name_that_cannot_be_stored_costs_no_other_video(
    videos, extract, tmp_path, name, message
):
    copy(videos / 'v0.mp4', name)
    seen, report = extract()
    assert seen == ['v0.mp4', 'v1.mp4']
    assert [text.partition('videos/')[2] for text in report.failures.values()] == [message]
    report.write(tmp_path / 'report.json')
    assert list(json.loads((tmp_path / 'report.json').read_text())['failures'].values()) == list(
        report.failures.values()
    )
    assert report.lines()[-1].endswith(message)
    assert stored(tmp_path / 'f.h5') == ['v0', 'v1']
    assert extract()[0] == []


def test_names_of_any_length_and_script_are_stored(videos, extract, tmp_path):
    names = ['x' * 245, 'y' * 251, 'ж' * 125, 'e\u0301', '\u00e9', '...', 'a\nb', 'V0', ' ']
    for name in names:
        copy(videos / 'v0.mp4', f'{name}.mp4'.encode())
    _, report = extract(workers=2)
    assert report == ExtractionReport()
    assert stored(tmp_path / 'f.h5') == sorted([*names, 'v0', 'v1'])
    assert extract()[0] == []


def test_files_of_other_kinds_are_counted(videos, extract, tmp_path):
    for name in ('a.txt', 'b.TXT', 'c'):
        (videos / name).write_text('')
    (videos / 'folder.mp4').mkdir()
    report = extract()[1]
    assert report == ExtractionReport(others={'.txt': 2, '': 1})
    assert report.lines() == [
        '3 files in the folders are no videos and were passed over: 1 without suffix, 2 .txt'
    ]


def _work(videos, out, begun, end):
    class Waiting(Counting):
        def reader(self, video):
            begun.set()
            end.wait(300)
            return super().reader(video)

    extract_videos(Waiting(), [videos], out, 0)


def test_a_second_run_into_one_file_is_told_whose_it_is_until_that_has_ended(
    videos, extract, tmp_path
):
    context = get_context('fork')
    begun = context.Event()
    first = context.Process(target=_work, args=(videos, tmp_path / 'f.h5', begun, context.Event()))
    first.start()
    assert begun.wait(300)
    parts = sorted((tmp_path / 'f.h5.parts').iterdir())
    with pytest.raises(
        FeatureFileError,
        match=rf'f\.h5 is in use by process {first.pid} on .*'
        r'Let it end, or name another one',
    ):
        extract()
    assert sorted((tmp_path / 'f.h5.parts').iterdir()) == parts  # nothing of it was touched
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert extract()[0] == ['v0.mp4', 'v1.mp4']
    assert {path.name for path in tmp_path.iterdir()} == {'videos', 'f.h5'}


def test_a_second_run_in_another_thread_is_told_too(extract, tmp_path):
    with (
        FileLock(tmp_path / 'f.h5'),
        pytest.raises(FeatureFileError, match=f'in use by process {os.getpid()}'),
    ):
        extract()
    assert extract()[0] == ['v0.mp4', 'v1.mp4']


def _refused(rank, videos, out):
    with pytest.raises(FeatureFileError) as error:
        extract_videos(Counting(), [videos], out, 0)
    return str(error.value)


def test_all_processes_of_a_second_run_are_told(videos, tmp_path):
    with FileLock(tmp_path / 'f.h5'):
        said = in_ranks(tmp_path, _refused, videos, tmp_path / 'f.h5')
    assert all(f'in use by process {os.getpid()}' in message for message in said)


def test_a_folder_in_the_place_of_the_parts_is_left_alone(extract, tmp_path):
    (tmp_path / 'f.h5.parts').mkdir()
    (tmp_path / 'f.h5.parts' / 'mine.txt').write_text('')
    with pytest.raises(FeatureFileError, match=r'f\.h5\.parts .* holds something else'):
        extract()
    assert (tmp_path / 'f.h5.parts' / 'mine.txt').is_file()


def replace(video, value):
    write_video(video, np.full((12, 48, 32), value, np.uint8), fps=8)
    os.utime(video, ns=(7, 7))  # for clocks that stand still


def test_a_replaced_video_gets_features_of_its_own(videos, extract, tmp_path):
    extract()
    replace(videos / 'v1.mp4', 200)
    seen, report = extract()
    assert seen == ['v1.mp4']
    assert report.notes == {'v1': {'replaced since its features were made': 'made anew'}}
    with h5py.File(tmp_path / 'f.h5') as file:
        np.testing.assert_array_equal(file['v1'], GridFeatureExtractor(size=16)(videos / 'v1.mp4'))
    assert extract() == ([], ExtractionReport())


def test_a_video_that_is_replaced_before_its_part_is_merged_gets_its_own_too(
    videos, extract, tmp_path
):
    file = FeatureFile(tmp_path / 'f.h5', Counting().settings)
    file.open_parts()
    for name in ('v0', 'v1'):
        file.add(name, np.zeros((2, 174), np.float32), dict(size=7, mtime=7, sha256='7'))
    seen, report = extract()
    assert seen == ['v0.mp4', 'v1.mp4']
    assert sorted(report.notes) == ['v0', 'v1']
    with h5py.File(tmp_path / 'f.h5') as file:
        assert file['v0'][()].any()


def test_a_video_with_another_time_alone_is_the_same(videos, extract, tmp_path):
    extract()
    for path in list(videos.iterdir()):
        os.utime(path, ns=(7, 7))
    assert extract() == ([], ExtractionReport())


@pytest.mark.parametrize('place', [0, 3 << 20, -1])
def test_a_change_of_content_is_seen_at_any_end_of_a_large_file(tmp_path, place):
    from mmn_plugin.features.feature_file import is_replaced, video_mark

    content = bytearray(6 << 20)
    path = tmp_path / 'v.avi'
    path.write_bytes(content)
    mark = video_mark(path)
    os.utime(path, ns=(7, 7))
    assert not is_replaced(mark, path)
    content[place] = 1
    path.write_bytes(content)
    os.utime(path, ns=(7, 7))
    assert is_replaced(mark, path)
    path.unlink()
    assert not is_replaced(mark, path)


def test_features_of_a_video_that_was_replaced_by_a_bad_one_go(videos, extract, tmp_path):
    extract()
    (videos / 'v1.mp4').write_bytes(b'no video')
    report = extract()[1]
    assert 'the features of the video that had its name are removed' in report.failures['v1']
    assert stored(tmp_path / 'f.h5') == ['v0']
    assert extract()[0] == ['v1.mp4']  # it is tried again


def test_a_failure_of_an_earlier_run_removes_nothing(videos, extract, tmp_path):
    extract()
    file = FeatureFile(tmp_path / 'f.h5', Counting().settings)
    file.open_parts()
    file.fail('v1', 'of a run that was killed')
    assert extract() == ([], ExtractionReport())
    assert stored(tmp_path / 'f.h5') == ['v0', 'v1']


def test_features_without_a_mark_are_kept_with_one_remark(videos, extract, tmp_path):
    extract()
    with h5py.File(tmp_path / 'f.h5', 'a') as file:
        for entry in file.values():
            del entry.attrs['video']
    replace(videos / 'v1.mp4', 200)
    seen, report = extract()
    assert seen == []
    assert report.lines() == [
        '2 of the videos have features that do not tell which file they were made of: whether it '
        'was replaced since is not known'
    ]
