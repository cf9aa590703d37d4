import json
import os
import signal
import time
import tracemalloc
from multiprocessing import get_context

import h5py
import numpy as np
import pytest
from helpers.processes import in_ranks

from mmn_plugin.features import (
    ExtractionReport,
    FeatureFile,
    FeatureFileError,
    VideoReader,
    VideoReadError,
    extract_videos,
    find_videos,
    run_parallel,
)
from mmn_plugin.shapes import GridFeatureExtractor
from mmn_plugin.shapes.corpus import write_video

SETTINGS = dict(extractor='grid', stride=6, fps=8.0)


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / 'videos'
    folder.mkdir()
    for i in range(3):
        frames = np.full((12, 48, 32), 100 + i, np.uint8)
        write_video(folder / f'v{i}.mp4', frames, fps=8)
    return folder


class Counting(GridFeatureExtractor):
    def __init__(self):
        super().__init__(size=16)
        self.seen = []

    def reader(self, video):
        self.seen.append(video.stem)
        return super().reader(video)


def test_the_file_holds_one_dataset_per_video_with_attributes(videos, tmp_path):
    out = tmp_path / 'f.h5'
    config = dict(type='GridFeatureExtractor')
    assert (
        extract_videos(GridFeatureExtractor(), [videos], out, config=config) == ExtractionReport()
    )
    with h5py.File(out) as file:
        assert sorted(file) == ['v0', 'v1', 'v2']
        assert file['v1'].shape == (2, GridFeatureExtractor().num_features)
        assert file['v1'].dtype == np.float32
        attributes = dict(GridFeatureExtractor().settings, config=json.dumps(config))
        assert dict(file.attrs) == attributes
        mark = json.loads(file['v1'].attrs['video'])
        assert mark['size'] == (videos / 'v1.mp4').stat().st_size
        assert dict(file['v1'].attrs) == dict(attributes, video=json.dumps(mark))
        np.testing.assert_array_equal(file['v1'], GridFeatureExtractor()(videos / 'v1.mp4'))
    assert {path.name for path in tmp_path.iterdir()} == {'videos', 'f.h5'}


def test_a_second_run_only_adds_new_videos(videos, tmp_path):
    extract_videos(Counting(), [videos / 'v0.mp4'], tmp_path / 'f.h5', workers=0)
    extractor = Counting()
    extract_videos(extractor, [videos], tmp_path / 'f.h5', workers=0)
    assert extractor.seen == ['v1', 'v2']
    with h5py.File(tmp_path / 'f.h5') as file:
        assert len(file) == 3


def test_after_an_interruption_the_file_is_usable_and_work_goes_on(videos, tmp_path):
    class Stopping(Counting):
        def reader(self, video):
            if video.stem == 'v2':
                raise KeyboardInterrupt
            return super().reader(video)

    with pytest.raises(KeyboardInterrupt):
        extract_videos(Stopping(), [videos], tmp_path / 'f.h5', workers=0)
    with h5py.File(tmp_path / 'f.h5') as file:
        assert sorted(file) == ['v0', 'v1']
    extractor = Counting()
    extract_videos(extractor, [videos], tmp_path / 'f.h5', workers=0)
    assert extractor.seen == ['v2']


def test_after_a_kill_finished_videos_are_not_lost(videos, tmp_path):
    """A kill leaves only the parts; half a part does not count."""
    file = FeatureFile(tmp_path / 'f.h5', Counting().settings)
    file.open_parts()
    file.add('v0', np.ones((2, 174), np.float32))
    (file.parts / 'v1.part').write_bytes(b'\x93NUMPY half')
    extractor = Counting()
    extract_videos(extractor, [videos], tmp_path / 'f.h5', workers=0)
    assert extractor.seen == ['v1', 'v2']
    with h5py.File(tmp_path / 'f.h5') as out:
        assert sorted(out) == ['v0', 'v1', 'v2']


def test_unreadable_videos_are_named_and_the_rest_goes_on(videos, tmp_path):
    (videos / 'v1.mp4').write_bytes(b'no video at all')
    failures = extract_videos(
        GridFeatureExtractor(), [videos, tmp_path / 'gone.mp4'], tmp_path / 'f.h5'
    ).failures
    assert list(failures) == ['gone', 'v1']
    assert 'no such file' in failures['gone']
    assert str(videos / 'v1.mp4') in failures['v1']
    with h5py.File(tmp_path / 'f.h5') as file:
        assert sorted(file) == ['v0', 'v2']


@pytest.mark.parametrize('content', [b'', b'\0' * 4096])
def test_reading_a_damaged_video_names_it(tmp_path, content):
    (tmp_path / 'bad.mp4').write_bytes(content)
    with pytest.raises(VideoReadError, match=r'bad\.mp4'):
        list(VideoReader(tmp_path / 'bad.mp4', 8, 16))


def test_a_cut_off_video_is_an_error_not_a_short_one(videos):
    whole = (videos / 'v0.mp4').read_bytes()
    (videos / 'v0.mp4').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoReadError, match=r'v0\.mp4'):
        list(VideoReader(videos / 'v0.mp4', 8, 16))


def test_features_of_another_extractor_are_refused(videos, tmp_path):
    extract_videos(GridFeatureExtractor(), [videos], tmp_path / 'f.h5', workers=0)
    with pytest.raises(FeatureFileError, match=r"f.h5 .*'stride': 6.*'stride': 4.*delete"):
        extract_videos(GridFeatureExtractor(stride=4), [videos], tmp_path / 'f.h5')


def test_parts_of_another_extractor_are_refused(tmp_path):
    FeatureFile(tmp_path / 'f.h5', SETTINGS).open_parts()
    with pytest.raises(FeatureFileError, match='parts'):
        FeatureFile(tmp_path / 'f.h5', {**SETTINGS, 'fps': 4.0})


def test_a_damaged_feature_file_is_refused(tmp_path):
    (tmp_path / 'f.h5').write_bytes(b'rubbish')
    with pytest.raises(FeatureFileError, match=r'f\.h5: cannot be read'):
        FeatureFile(tmp_path / 'f.h5', SETTINGS)


def test_two_videos_of_one_name_are_refused(videos, tmp_path):
    (tmp_path / 'v0.avi').touch()
    with pytest.raises(FeatureFileError, match=r"v0\.mp4 and .*v0\.avi .*'v0'"):
        find_videos([videos, tmp_path / 'v0.avi'])


def test_a_folder_without_videos_is_refused(tmp_path):
    with pytest.raises(FeatureFileError, match='no video'):
        find_videos([tmp_path])


def test_a_killed_worker_is_said():
    with pytest.raises(RuntimeError, match='worker process was killed'):
        list(run_parallel(os._exit, [9], workers=1))


def test_an_error_in_a_worker_arrives():
    with pytest.raises(ValueError, match='invalid literal'):
        list(run_parallel(int, ['x'] * 5, workers=2))


def test_a_kill_at_any_moment_costs_no_finished_video(videos, tmp_path):
    class Slow(Counting):
        def reader(self, video):
            if video.stem == 'v2':
                time.sleep(1000)
            return super().reader(video)

    process = get_context('fork').Process(
        target=extract_videos, args=(Slow(), [videos], tmp_path / 'f.h5', 0)
    )
    process.start()
    parts, deadline = tmp_path / 'f.h5.parts', time.monotonic() + 300
    while len(list(parts.glob('*.rows'))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (tmp_path / 'f.h5').exists()
    extractor, seen = Counting(), []
    report = extract_videos(
        extractor,
        [videos],
        tmp_path / 'f.h5',
        workers=0,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert report == ExtractionReport()
    assert extractor.seen == ['v2']
    assert seen[0] == (2, 3)
    assert seen[-1] == (3, 3)
    with h5py.File(tmp_path / 'f.h5') as file:
        assert sorted(file) == ['v0', 'v1', 'v2']


def test_features_of_any_length_are_never_in_memory_at_once(tmp_path):
    """100 MB of features through both steps to the file, in less than a tenth of that."""
    rows, size = 64, 2048

    def blocks():
        for i in range(200):
            yield np.full((rows, size), i, np.float32)

    file = FeatureFile(tmp_path / 'f.h5', SETTINGS)
    file.open_parts()
    tracemalloc.start()
    try:
        file.add('v', blocks())
        file.merge()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    with h5py.File(tmp_path / 'f.h5') as stored:
        assert stored['v'].shape == (200 * rows, size)
        assert [stored['v'][i * rows, 0] for i in (0, 99, 199)] == [0, 99, 199]


@pytest.mark.parametrize(
    ('blocks', 'message'),
    [([], 'gave no features'), ([np.full((1, 2), np.nan)], 'NaN or infinity')],
)
def test_features_that_are_no_numbers_are_refused(tmp_path, blocks, message):
    file = FeatureFile(tmp_path / 'f.h5', SETTINGS)
    file.open_parts()
    with pytest.raises(VideoReadError, match=f'v: .*{message}'):
        file.add('v', blocks)


def test_a_video_is_claimed_once(tmp_path):
    file = FeatureFile(tmp_path / 'f.h5', SETTINGS)
    file.open_parts()
    assert file.claim('v')
    assert not FeatureFile(tmp_path / 'f.h5', SETTINGS).claim('v')
    file.open_parts()  # the next run
    assert file.claim('v')


def _share(rank, videos, out):
    said = []

    def progress(*counts):
        said.append(counts)

    extractor = GridFeatureExtractor(size=16)
    return extract_videos(extractor, videos, out, 0, None if rank else progress), said


def test_processes_share_the_videos_and_the_first_one_reports(videos, tmp_path):
    (videos / 'bad.mp4').write_bytes(b'x')
    (report, bars), (other, _) = in_ranks(tmp_path, _share, [videos], tmp_path / 'f.h5')
    assert other == ExtractionReport()
    assert list(report.failures) == ['bad']
    assert bars[0] == (0, 4)
    assert bars[-1] == (4, 4)
    with h5py.File(tmp_path / 'f.h5') as file:
        assert sorted(file) == ['v0', 'v1', 'v2']
