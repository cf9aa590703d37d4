"""Extraction: the file, what is done again, bad videos and names, other runs at the same time."""

import json
import os
import shutil
import signal
import tracemalloc
from contextlib import closing
from multiprocessing import get_context

import h5py
import numpy as np
import pytest
from helpers.processes import in_ranks

from mmn_plugin.features import (
    ExtractionReport,
    FeatureFile,
    FeatureFileError,
    VideoReadError,
    extract_videos,
    find_videos,
    run_parallel,
)
from mmn_plugin.features.feature_file import is_replaced, video_mark
from mmn_plugin.locks import FileLock
from mmn_plugin.shapes import GridFeatureExtractor
from mmn_plugin.shapes.corpus import write_video

SETTINGS = dict(extractor='grid', stride=6, fps=8.0)


class Counting(GridFeatureExtractor):
    """Notes what it reads; what happens at a video may be given."""

    def __init__(self, **at):
        super().__init__(size=16)
        self.seen, self.at = [], at

    def reader(self, video):
        self.at.get(video.stem, lambda: None)()
        self.seen.append(video.name)
        return super().reader(video)


def write(path, value):
    write_video(path, np.full((12, 48, 32), value, np.uint8), fps=8)
    os.utime(path, ns=(value, value))  # for clocks that stand still


def add(file, name, blocks, mark=None):
    with closing(file.writer(name, mark)) as writer:
        for block in blocks:
            writer.write(block)
        writer.end()


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / 'videos'
    folder.mkdir()
    for i in range(2):
        write(folder / f'v{i}.mp4', 100 + i)
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'f.h5'


@pytest.fixture
def extract(videos, out):
    """Run an extraction; returns the names of the videos that were read, and the report."""

    def run(workers=0, **at):
        extractor = Counting(**at)
        report = extract_videos(extractor, [videos], out, workers)
        return extractor.seen, report

    return run


def stored(path):
    with h5py.File(path) as file:
        return sorted(file)


def test_the_file_holds_one_dataset_per_video_with_attributes(videos, out):
    config, extractor = dict(type='GridFeatureExtractor'), GridFeatureExtractor()
    assert extract_videos(extractor, [videos], out, config=config) == ExtractionReport()
    with h5py.File(out) as file:
        assert sorted(file) == ['v0', 'v1']
        assert file['v1'].shape == (2, extractor.num_features)
        attributes = dict(extractor.settings, config=json.dumps(config))
        assert dict(file.attrs) == attributes
        mark = json.loads(file['v1'].attrs['video'])
        assert mark['size'] == (videos / 'v1.mp4').stat().st_size
        assert dict(file['v1'].attrs) == dict(attributes, video=json.dumps(mark))
        np.testing.assert_array_equal(file['v1'], extractor(videos / 'v1.mp4'))
        assert file['v1'].dtype == np.float32
    assert {path.name for path in out.parent.iterdir()} == {'videos', 'f.h5'}


def test_a_second_run_only_adds_new_videos(videos, extract, out):
    extract()
    write(videos / 'v2.mp4', 9)
    assert extract() == (['v2.mp4'], ExtractionReport())
    assert stored(out) == ['v0', 'v1', 'v2']


def interrupt():
    raise KeyboardInterrupt


def test_after_an_interruption_the_file_is_usable_and_work_goes_on(extract, out):
    with pytest.raises(KeyboardInterrupt):
        extract(v1=interrupt)
    assert stored(out) == ['v0']
    assert extract() == (['v1.mp4'], ExtractionReport())


def test_a_kill_at_any_moment_costs_no_finished_video(videos, extract, out):
    class Killed(Counting):
        def batches(self, frames):
            yield from super().batches(frames)
            if frames.path.stem == 'v1':
                os.kill(os.getpid(), signal.SIGKILL)

    job = get_context('fork').Process(target=extract_videos, args=(Killed(), [videos], out, 0))
    job.start()
    job.join(300)
    assert job.exitcode == -signal.SIGKILL
    assert not out.exists()
    extractor, shown = Counting(), []
    extract_videos(extractor, [videos], out, 0, lambda *counts: shown.append(counts))
    assert extractor.seen == ['v1.mp4']
    assert (shown[0], shown[-1]) == ((1, 2), (2, 2))
    assert stored(out) == ['v0', 'v1']


def test_unreadable_videos_are_named_and_the_rest_goes_on(videos, out):
    (videos / 'v1.mp4').write_bytes(b'no video at all')
    gone = out.with_name('gone.mp4')
    failures = extract_videos(GridFeatureExtractor(), [videos, gone], out).failures
    assert list(failures) == ['gone', 'v1']
    assert 'no such file' in failures['gone']
    assert str(videos / 'v1.mp4') in failures['v1']
    assert stored(out) == ['v0']


def test_features_of_another_extractor_and_what_is_no_feature_file_are_refused(videos, out):
    FeatureFile(out, SETTINGS).open_parts()
    with pytest.raises(FeatureFileError, match=r'parts holds .*: fps 8\.0, here 4\.0; delete'):
        FeatureFile(out, {**SETTINGS, 'fps': 4.0})
    shutil.rmtree(f'{out}.parts')
    extract_videos(GridFeatureExtractor(), [videos], out, workers=0)
    with pytest.raises(FeatureFileError, match=r'f\.h5 .*: stride 6, here 4; delete'):
        extract_videos(GridFeatureExtractor(stride=4), [videos], out)
    out.write_bytes(b'rubbish')
    with pytest.raises(FeatureFileError, match=r'f\.h5: cannot be read'):
        FeatureFile(out, SETTINGS)


def test_two_videos_of_one_name_and_a_folder_of_none_are_refused(videos, tmp_path):
    (tmp_path / 'v0.avi').touch()
    with pytest.raises(FeatureFileError, match=r"v0\.mp4 and .*v0\.avi .*'v0'"):
        find_videos([videos, tmp_path / 'v0.avi'])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FeatureFileError, match='no video'):
        find_videos([tmp_path / 'empty'])


def test_a_killed_worker_and_an_error_in_one_are_said():
    with pytest.raises(RuntimeError, match='worker process was killed'):
        list(run_parallel(os._exit, [9], workers=1))
    with pytest.raises(ValueError, match='invalid literal'):
        list(run_parallel(int, ['x'] * 5, workers=2))


def test_features_of_any_length_are_never_in_memory_at_once(out):
    """100 MB of features through both steps to the file, in less than a tenth of that."""
    rows, size = 64, 2048
    file = FeatureFile(out, SETTINGS)
    file.open_parts()
    tracemalloc.start()
    try:
        add(file, 'v', (np.full((rows, size), i, np.float32) for i in range(200)))
        file.merge()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    with h5py.File(out) as stored:
        assert stored['v'].shape == (200 * rows, size)
        assert [stored['v'][i * rows, 0] for i in (0, 99, 199)] == [0, 99, 199]


@pytest.mark.parametrize(
    ('blocks', 'message'),
    [([], 'gave no features'), ([np.full((1, 2), np.nan)], 'NaN or infinity')],
)
def test_features_that_are_no_numbers_are_refused(out, blocks, message):
    file = FeatureFile(out, SETTINGS)
    file.open_parts()
    with pytest.raises(VideoReadError, match=f'v: .*{message}'):
        add(file, 'v', blocks)


def _share(rank, videos, out):
    said = []

    def progress(*counts):
        said.append(counts)

    extractor = Counting()
    report = extract_videos(extractor, videos, out, 0, None if rank else progress)
    return report, said, extractor.seen


def test_processes_share_the_videos_and_the_first_one_reports(videos, out):
    (videos / 'bad.mp4').write_bytes(b'x')
    first, second = in_ranks(out.parent, _share, [videos], out)
    assert sorted(first[2] + second[2]) == ['bad.mp4', 'v0.mp4', 'v1.mp4']  # each is claimed once
    assert second[0] == ExtractionReport()
    assert list(first[0].failures) == ['bad']
    assert first[0].speed['frames'] == 2 * 12  # of both
    assert (first[1][0], first[1][-1]) == ((0, 3), (3, 3))
    assert stored(out) == ['v0', 'v1']


def copy(video, name: bytes) -> None:
    shutil.copy(os.fsencode(video), os.path.join(os.fsencode(video.parent), name))


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        (b'caf\xe9.mp4', r'caf\xe9.mp4: its name holds bytes that are no UTF-8; rename it'),
        (b'..mp4', '..mp4: its name cannot be that of an entry; rename it'),
    ],
)
def test_a_name_that_cannot_be_stored_costs_no_other_video(videos, extract, out, name, message):
    copy(videos / 'v0.mp4', name)
    seen, report = extract()
    assert seen == ['v0.mp4', 'v1.mp4']
    assert [text.partition('videos/')[2] for text in report.failures.values()] == [message]
    assert json.loads(json.dumps(report.failures)) == report.failures
    assert report.lines()[-1].endswith(message)
    assert stored(out) == ['v0', 'v1']
    assert extract()[0] == []


def test_names_of_any_length_and_script_are_stored(videos, extract, out):
    names = ['x' * 245, 'y' * 251, 'ж' * 125, 'e\u0301', '\u00e9', '...', 'a\nb', 'V0', ' ']
    for name in names:
        copy(videos / 'v0.mp4', f'{name}.mp4'.encode())
    _, report = extract(workers=2)
    assert report == ExtractionReport()
    assert stored(out) == sorted([*names, 'v0', 'v1'])
    assert extract()[0] == []


def test_files_of_other_kinds_are_counted(videos, extract):
    for name in ('a.txt', 'b.TXT', 'c'):
        (videos / name).write_text('')
    (videos / 'folder.mp4').mkdir()
    report = extract()[1]
    assert report == ExtractionReport(others={'.txt': 2, '': 1})
    assert report.lines()[1:] == [
        '3 files in the folders are no videos and were passed over: 1 without suffix, 2 .txt'
    ]


def test_a_report_of_many_names_the_first_few():
    report = ExtractionReport(notes={f'v{i}': dict(rotated='turned') for i in range(9)})
    assert report.lines()[0].endswith('v4 (turned), and 4 more')


def test_a_second_run_into_one_file_is_told_whose_it_is_until_that_has_ended(videos, extract, out):
    context = get_context('fork')
    begun = context.Event()
    waiting = Counting(v0=lambda: (begun.set(), context.Event().wait(300)))
    first = context.Process(target=extract_videos, args=(waiting, [videos], out, 0))
    first.start()
    assert begun.wait(300)
    parts = sorted(out.with_name('f.h5.parts').iterdir())
    message = rf'f\.h5 is in use by process {first.pid} on .*Let it end, or name another one'
    with pytest.raises(FeatureFileError, match=message):
        extract()
    assert sorted(out.with_name('f.h5.parts').iterdir()) == parts  # nothing of it was touched
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    with (
        FileLock(out),
        pytest.raises(FeatureFileError, match=f'in use by process {os.getpid()}'),
    ):
        extract()
    assert extract()[0] == ['v0.mp4', 'v1.mp4']
    assert {path.name for path in out.parent.iterdir()} == {'videos', 'f.h5'}


def _refused(rank, videos, out):
    with pytest.raises(FeatureFileError) as error:
        extract_videos(Counting(), [videos], out, 0)
    return str(error.value)


def test_all_processes_of_a_second_run_are_told(videos, out):
    with FileLock(out):
        said = in_ranks(out.parent, _refused, videos, out)
    assert all(f'in use by process {os.getpid()}' in message for message in said)


def test_a_folder_in_the_place_of_the_parts_is_left_alone(extract, out):
    mine = out.with_name('f.h5.parts') / 'mine.txt'
    mine.parent.mkdir()
    mine.write_text('')
    with pytest.raises(FeatureFileError, match=r'f\.h5\.parts .* holds something else'):
        extract()
    assert mine.is_file()


def test_a_replaced_video_gets_features_of_its_own(videos, extract, out):
    extract()
    write(videos / 'v1.mp4', 200)
    seen, report = extract()
    assert seen == ['v1.mp4']
    assert report.notes == {'v1': {'replaced since its features were made': 'made anew'}}
    with h5py.File(out) as file:
        np.testing.assert_array_equal(file['v1'], GridFeatureExtractor(size=16)(videos / 'v1.mp4'))
    for path in videos.iterdir():
        os.utime(path, ns=(7, 7))
    assert extract() == ([], ExtractionReport())  # with another time alone it is the same
    (videos / 'v1.mp4').write_bytes(b'no video')
    report = extract()[1]
    assert 'the features of the video that had its name are removed' in report.failures['v1']
    assert stored(out) == ['v0']
    assert extract()[0] == ['v1.mp4']  # it is tried again


def test_a_video_that_is_replaced_before_its_part_is_merged_gets_its_own_too(extract, out):
    file = FeatureFile(out, Counting().settings)
    file.open_parts()
    for name in ('v0', 'v1'):
        add(file, name, [np.zeros((2, 174), np.float32)], dict(size=7, mtime=7, sha256='7'))
    seen, report = extract()
    assert seen == ['v0.mp4', 'v1.mp4']
    assert sorted(report.notes) == ['v0', 'v1']
    with h5py.File(out) as file:
        assert file['v0'][()].any()


@pytest.mark.parametrize('place', [0, 3 << 20, -1])
def test_a_change_of_content_is_seen_at_any_end_of_a_large_file(tmp_path, place):
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


def test_a_failure_of_an_earlier_run_removes_nothing(extract, out):
    extract()
    file = FeatureFile(out, Counting().settings)
    file.open_parts()
    file.fail('v1', 'of a run that was killed')
    assert extract() == ([], ExtractionReport())
    assert stored(out) == ['v0', 'v1']


def test_features_without_a_mark_are_kept_with_one_remark(videos, extract, out):
    extract()
    with h5py.File(out, 'a') as file:
        for entry in file.values():
            del entry.attrs['video']
    write(videos / 'v1.mp4', 200)
    seen, report = extract()
    assert seen == []
    assert report.lines() == [
        '2 of the videos have features that do not tell which file they were made of: whether it '
        'was replaced since is not known'
    ]
