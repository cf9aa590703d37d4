"""Decoding and preparing ahead, beside an extractor that is on an accelerator."""

import os
import re
import signal
import sys
import threading
import time
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.alive import Alive

from mmn_plugin.cli import extract
from mmn_plugin.cli.main import main as command
from mmn_plugin.features import (
    FeatureExtractor,
    VideoReader,
    VideoReadError,
    extract_videos,
    extractor_config,
    pipeline,
)
from mmn_plugin.features.pipeline import END, Timing, described
from mmn_plugin.shapes.corpus import write_video

PATIENCE = 600.0  # seconds after which what should have happened has not


class Means(FeatureExtractor):
    """Means of frames, four frames a batch."""

    fps, stride, threads = 8.0, 2, True
    identity, num_features = 'means', 3

    def reader(self, video):
        return VideoReader(video, self.fps, 16)

    def batches(self, frames):
        frames = iter(frames)
        while batch := list(islice(frames, 4)):
            yield np.stack(batch)

    def describe_batch(self, batch):
        return batch.reshape(-1, self.stride, 3, 16 * 16).mean((1, 3), dtype=np.float32)


class Overlapping(Means):
    """Describes a batch only when the next one of its video is prepared."""

    def __init__(self, num_batches):
        self.prepared = [threading.Event() for _ in range(num_batches + 1)]
        self.prepared[-1].set()
        self.described = 0

    def batches(self, frames):
        for batch, event in zip(super().batches(frames), self.prepared, strict=False):
            event.set()
            yield batch

    def describe_batch(self, batch):
        self.described += 1
        assert self.prepared[self.described].wait(PATIENCE), 'nothing was prepared meanwhile'
        return super().describe_batch(batch)


@pytest.fixture
def videos(tmp_path):
    folder, rng = tmp_path / 'videos', np.random.default_rng(0)
    folder.mkdir()
    for i in range(5):
        shades = rng.integers(30, 220, 16 + 4 * i, dtype=np.uint8)
        write_video(
            folder / f'v{i}.mp4',
            np.broadcast_to(shades[:, None, None], (len(shades), 48, 32)),
            fps=8,
        )
    return folder


def read(path):
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


def test_the_next_batch_is_prepared_while_one_is_described(videos, tmp_path):
    extract_videos(Overlapping(4), [videos / 'v0.mp4'], tmp_path / 'f.h5', workers=1)
    whole = read(tmp_path / 'f.h5')['v0']
    assert whole.shape == (8, 3)
    np.testing.assert_array_equal(Overlapping(4)(videos / 'v0.mp4'), whole)


def test_the_next_video_is_prepared_by_the_same_thread_while_one_is_described(videos, tmp_path):
    begun = threading.Event()

    class Waiting(Means):
        """Describes the only batch of the first video when the second one is decoded."""

        described = 0

        def batches(self, frames):
            for batch in islice(super().batches(frames), 1):
                if frames.path.stem == 'v1':
                    begun.set()
                yield batch

        def describe_batch(self, batch):
            assert begun.wait(PATIENCE), 'the next video was not begun'
            return super().describe_batch(batch)

    names = [videos / 'v2.mp4', videos / 'v1.mp4']
    assert not extract_videos(Waiting(), names, tmp_path / 'f.h5', workers=1).failures


class Prepared:
    """Gives out batches 1, 2, 3 of one source; ``ready`` is what a list says, in turns."""

    def __init__(self, ready, took=lambda: None):
        self._ready, self._took = iter(ready), took
        self._items = iter([1, 2, 3, END])
        self.closed = False

    ready = property(lambda self: next(self._ready))

    def get(self):
        self._took()
        item = next(self._items, None)
        return None if item is None else ('video', item)

    def close(self):
        self.closed = True


@pytest.mark.parametrize(
    ('ready', 'order'),
    [
        ([True] * 4, 'start 1, start 2, rows 1, start 3, rows 2, rows 3'),
        ([False, True, False, False], 'start 1, rows 1, start 2, start 3, rows 2, rows 3'),
    ],
)
def test_rows_are_waited_for_once_the_next_batch_is_started_if_that_is_ready(ready, order):
    done = []

    def start_batch(batch):
        done.append(f'start {batch}')
        return lambda: done.append(f'rows {batch}') or batch

    prepared = Prepared(ready)
    assert [rows for _, rows in described(start_batch, prepared, Timing())] == [1, 2, 3, END]
    assert ', '.join(done) == order
    assert prepared.closed


def test_the_time_is_shared_among_waiting_for_frames_and_computing(monkeypatch):
    now = [0.0]

    def pass_by(seconds):
        now[0] += seconds

    def start_batch(batch):
        pass_by(1)
        return lambda: pass_by(3)

    monkeypatch.setattr(pipeline, 'perf_counter', lambda: now[0])
    timing, prepared = Timing(), Prepared([True] * 4, lambda: pass_by(2))
    assert sum(1 for _ in described(start_batch, prepared, timing)) == 4
    assert (timing.waiting, timing.computing) == (2 * 5, 4 * 3)  # END and what follows wait too
    timing.frames = 30
    assert (timing + timing).speed(4.0) == dict(
        frames=60, seconds=4.0, frames_per_second=15.0, waiting=10 / 22, computing=12 / 22
    )


@pytest.mark.parametrize('workers', [0, 1, 2])
def test_the_report_and_the_bar_tell_frames_per_second(videos, tmp_path, workers):
    said = []
    report = extract_videos(
        Means(), [videos], tmp_path / 'f.h5', workers, lambda *_: None, tell=said.append
    )
    assert report.speed['frames'] == sum(16 + 4 * i for i in range(5))
    assert report.speed['frames_per_second'] == pytest.approx(120 / report.speed['seconds'])
    assert report.speed['waiting'] + report.speed['computing'] == pytest.approx(1)
    pattern = r'[\d,]+ frames per second, \d+ % of the time waiting for frames, \d+ % computing'
    assert re.fullmatch(pattern, said[-1])
    assert report.lines()[0].startswith('120 frames in ')
    again = extract_videos(Means(), [videos], tmp_path / 'f.h5', workers)
    assert (again.speed, again.lines()) == ({}, [])


def test_other_videos_are_decoded_while_one_is_described(videos, tmp_path):
    class Meeting(Means):
        """Three videos are begun together, and none is described before."""

        begun = threading.Barrier(3)

        def batches(self, frames):
            if Path(frames.path).stem in ('v2', 'v3', 'v4'):
                self.begun.wait(PATIENCE)
            yield from super().batches(frames)

    assert not extract_videos(Meeting(), [videos], tmp_path / 'f.h5', workers=3).failures
    assert len(read(tmp_path / 'f.h5')) == 5


@pytest.mark.parametrize(('threads', 'workers'), [(True, 1), (True, 9), (False, 2)])
def test_features_are_the_same_with_any_number_of_workers(videos, tmp_path, threads, workers):
    extract_videos(Means(), [videos], tmp_path / 'one.h5', workers=0)
    extractor, shown = Means(), []
    extractor.threads = threads
    extract_videos(
        extractor,
        [videos],
        tmp_path / 'several.h5',
        workers,
        progress=lambda *counts: shown.append(counts),
    )
    one, several = read(tmp_path / 'one.h5'), read(tmp_path / 'several.h5')
    assert list(one) == list(several) == [f'v{i}' for i in range(5)]
    for name, rows in one.items():
        np.testing.assert_array_equal(several[name], rows)
    assert (shown[0], shown[-1]) == ((0, 5), (5, 5))


def test_of_long_videos_a_few_batches_are_in_memory(tmp_path):
    alive = Alive()

    class Long(Means):
        def reader(self, video):
            return Frames(np.zeros((3, 16, 16), np.uint8) for _ in range(800))

        def batches(self, frames):
            return alive.watch(super().batches(frames))

    names = [tmp_path / f'v{i}.mp4' for i in range(4)]
    report = extract_videos(Long(), names, tmp_path / 'f.h5', workers=2)
    assert not report.failures
    assert {features.shape for features in read(tmp_path / 'f.h5').values()} == {(400, 3)}
    assert alive.all == 4 * 200
    assert alive.most <= 2 * 2 + 1  # two of each worker, and the one described


class Frames:
    """Stands for a reader."""

    notes, given = {}, 0

    def __init__(self, frames):
        self.frames = frames

    def __iter__(self):
        for frame in self.frames:
            self.given += 1
            yield frame


def test_a_video_that_breaks_in_the_middle_costs_no_other(videos, tmp_path):
    class Breaking(Means):
        def batches(self, frames):
            for number, batch in enumerate(super().batches(frames)):
                if Path(frames.path).stem == 'v4' and number == 3:
                    raise VideoReadError(f'{frames.path}: breaks')
                yield batch

    report = extract_videos(Breaking(), [videos], tmp_path / 'f.h5', workers=3)
    assert report.failures == {'v4': f'{videos}/v4.mp4: breaks'}
    assert list(read(tmp_path / 'f.h5')) == ['v0', 'v1', 'v2', 'v3']


class Endless(Means):
    """Video v2 goes on for ever; whoever reads it leaves its process id."""

    def __init__(self, note, threads=True):
        self.note, self.threads = note, threads

    def reader(self, video):
        if video.stem != 'v2':
            return super().reader(video)
        self.note.write_text(str(os.getpid()))
        return Frames(np.zeros((3, 16, 16), np.uint8) for _ in count())


def test_a_video_whose_features_are_refused_is_not_decoded_to_its_end(videos, tmp_path):
    class Dividing(Endless):
        def describe_batch(self, batch):
            rows = super().describe_batch(batch)
            return rows if rows.any() else rows / np.float32(0)

    with np.errstate(invalid='ignore'):
        report = extract_videos(Dividing(tmp_path / 'note'), [videos], tmp_path / 'f.h5', workers=2)
    assert report.failures == {'v2': 'v2: its features hold NaN or infinity'}
    assert list(read(tmp_path / 'f.h5')) == ['v0', 'v1', 'v3', 'v4']


@pytest.mark.parametrize('step', ['batches', 'describe_batch'])
def test_an_error_ends_the_other_threads_too(videos, tmp_path, step):
    class Failing(Endless):
        def batches(self, frames):
            for batch in super().batches(frames):
                yield self.fail('batches', batch)

        def describe_batch(self, batch):
            return super().describe_batch(self.fail('describe_batch', batch))

        def fail(self, here, batch):
            if here == step and batch.any() and self.note.exists():
                raise RuntimeError('the network fails')
            return batch

    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match='the network fails'):
        extract_videos(Failing(tmp_path / 'note'), [videos], tmp_path / 'f.h5', workers=2)
    assert set(threading.enumerate()) <= before  # some of an earlier test's may have ended


@pytest.fixture(scope='module')
def main():
    extractor_config(extract.DEFAULT)  # imports what reading a config needs, once for all
    return command


def run_tool(main, extractor, out, arguments):
    """The command line with an extractor of this file; what it says goes beside the features."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    sys.stderr = out.with_suffix('.txt').open('w', buffering=1)
    extract.build_extractor = lambda *_: extractor
    sys.exit(main(['extract', *arguments, '--out', str(out)]))


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize(('threads', 'workers'), [(True, 2), (False, 2), (False, 0)])
def test_a_stopped_run_keeps_what_is_finished_and_leaves_no_process(
    main, videos, tmp_path, number, code, threads, workers
):
    out, note = tmp_path / 'f.h5', tmp_path / 'note'
    names = ['v0', 'v1', 'v2'] if workers else ['v2']  # the longest is the first
    paths = [str(videos / f'{name}.mp4') for name in names]
    process = get_context('fork').Process(
        target=run_tool,
        args=(main, Endless(note, threads), out, [*paths, '--workers', str(workers)]),
    )
    process.start()
    deadline = time.monotonic() + PATIENCE
    while (
        len(list(Path(f'{out}.parts').glob('*.video'))) < len(names) - 1
        or not (note.exists() and note.read_text())  # it exists before it is written
    ) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, number)
    process.join(PATIENCE)
    process.kill()  # where it has not ended
    assert process.exitcode == code
    assert 'Stopped. Run the command again' in out.with_suffix('.txt').read_text()
    assert 'Traceback' not in out.with_suffix('.txt').read_text()
    assert list(read(out)) == names[:-1]
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
