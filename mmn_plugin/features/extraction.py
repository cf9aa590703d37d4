"""Extract the features of many videos, in several processes, with a report."""

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import barrier, broadcast_object_list, get_world_size, is_main_process
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from mmn_plugin.errors import OperationError
from mmn_plugin.files import printable
from mmn_plugin.locks import FileInUseError, FileLock

from .feature_file import FeatureFile, FeatureFileError, is_replaced, name_problem, video_mark
from .video import VIDEO_SUFFIXES
from .video_stream import VideoReadError

SHOWN = 5  # videos named for each kind of note


@dataclass
class ExtractionReport:
    """What has to be said at the end.

    Attributes:
        failures (dict[str, str]): Video id -> why it has no features.
        notes (dict[str, dict[str, str]]): Video id -> kind -> details, of videos that have features
            although something about them was unusual.
        others (dict[str, int]): Suffix -> number of files that are no videos, in the folders.
        remarks (list[str]): What else has to be said.
    """

    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report as text: notes by kind with the first few videos, failures one by one."""
        lines, kinds = list(self.remarks), defaultdict(list)
        if self.others:
            counts = (f'{n} {suffix or "without suffix"}' for suffix, n in self.others.items())
            lines.append(
                f'{sum(self.others.values())} files in the folders are no videos and were '
                f'passed over: {", ".join(sorted(counts))}'
            )
        for video, notes in sorted(self.notes.items()):
            for kind, details in notes.items():
                kinds[kind].append(f'{video} ({details})')
        for kind, videos in sorted(kinds.items()):
            more = f', and {len(videos) - SHOWN} more' if len(videos) > SHOWN else ''
            named = f'{", ".join(videos[:SHOWN])}{more}'
            lines.append(f'{kind}, dealt with, in {len(videos)} of the videos: {named}')
        if self.failures:
            lines.append(f'{len(self.failures)} videos could not be read and are not in the file:')
            lines += [f'  {message}' for _, message in sorted(self.failures.items())]
        return lines


class ProgressBar:
    """A rich progress bar with a title behind a plain callback; a context manager.

    Where the output is no terminal it prints a line at each tenth instead.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._console = Console(stderr=True)
        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        self._bar = Progress(*columns, console=self._console)
        self._task = self._bar.add_task(title, total=None)
        self._said = -1

    def __enter__(self) -> 'ProgressBar':
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are finished.

        The bar starts here, so that worker processes fork before its thread exists.
        """
        if self._console.is_terminal:
            self._bar.start()
            self._bar.update(self._task, completed=done, total=total)
        elif (tenth := 10 * done // max(total, 1)) > self._said:
            self._said = tenth
            self._console.print(f'{self.title}: {done} of {total}')


def run_parallel(work: Callable[[Any], Any], jobs: Sequence, workers: int) -> Iterator[tuple]:
    """Call a function for every job in other processes.

    Args:
        work (Callable): A picklable function of one job.
        jobs (Sequence): Its arguments.
        workers (int): Number of processes; with 0 the work is done here.

    Yields:
        tuple: (job, result), as results come in. Where this ends early, so do the processes, in
        the middle of their jobs; so it is where ``work`` raises, and that is raised here.

    Raises:
        RuntimeError: If a worker was killed.
    """
    if workers == 0:
        yield from ((job, work(job)) for job in jobs)
        return
    # Forked workers start at once; spawned ones would each import PyTorch again.
    context, others = multiprocessing.get_context('fork'), {*multiprocessing.active_children()}

    def stop() -> None:
        for process in {*multiprocessing.active_children()} - others:
            process.terminate()

    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(work,))
    try:
        yield from _results(pool, _do, jobs, stop)
    except BrokenProcessPool as error:
        raise OperationError(
            'a worker process was killed (out of memory?); run the command '
            'again, with fewer workers: it goes on where it stopped'
        ) from error


def run_threads(
    work: Callable[[Any, threading.Event], Any], jobs: Sequence, workers: int
) -> Iterator[tuple]:
    """As `run_parallel`, but in threads.

    The function gets an event too, and should return soon once that is set, which happens where
    this ends early.
    """
    stop = threading.Event()
    pool = ThreadPoolExecutor(max(workers, 1))
    return _results(pool, lambda job: work(job, stop), jobs, stop.set)


def _results(
    pool: Executor, work: Callable[[Any], Any], jobs: Sequence, stop: Callable[[], None]
) -> Iterator[tuple]:
    with pool:
        pending = {pool.submit(work, job): job for job in jobs}
        try:
            for future in as_completed(pending):
                yield pending.pop(future), future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise


_work: Callable[[Any], Any] | None = None


def _begin(work: Callable[[Any], Any]) -> None:
    """Keep the work, which may hold a model, rather than send it along with every job."""
    global _work
    _work = work
    torch.set_num_threads(1)  # the pool is as wide as is wanted; and its threads do not fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent says what to do
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _do(job):
    return _work(job)


def _end_with_parent() -> None:
    """Do not wait for work for ever where the parent was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


REPLACED = 'replaced since its features were made'  # kind of a note


def find_videos(paths: Iterable[str | Path], others: Counter | None = None) -> dict[str, Path]:
    """List videos by id, which is the file's name without suffix.

    Args:
        paths (Iterable[str | Path]): Video files, and folders whose videos are all taken.
        others (Counter, optional): Counts the folders' other files by suffix. Defaults to None.

    Returns:
        dict[str, Path]: Id -> file. A named file that does not exist is listed too; reading it
        will fail.

    Raises:
        FeatureFileError: If a folder holds no video, or two videos have the same id.
    """
    videos: dict[str, Path] = {}
    others = Counter() if others is None else others
    for path in map(Path, paths):
        files = [path]
        if path.is_dir():
            inside = sorted(file for file in path.rglob('*') if file.is_file())
            files = [file for file in inside if file.suffix.lower() in VIDEO_SUFFIXES]
            others.update(printable(file.suffix.lower()) for file in {*inside} - {*files})
            if not files:
                raise FeatureFileError(
                    f'{path}: no video in this folder (looked for {", ".join(VIDEO_SUFFIXES)})'
                )
        for file in files:
            if videos.setdefault(file.stem, file) != file:
                raise FeatureFileError(
                    f'{videos[file.stem]} and {file} would both be called '
                    f'{file.stem!r} in the feature file; rename one'
                )
    return videos


def extract_videos(
    extractor,
    videos: Sequence[str | Path],
    out: str | Path,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    config: dict | None = None,
) -> ExtractionReport:
    """Write the features of videos into an HDF5 file, or go on where an earlier run stopped.

    Where ``torch.distributed`` is initialized all its processes share the videos, the longest files
    first; they must see the same folder. The first process merges and reports.

    Args:
        extractor (FeatureExtractor): What describes a video.
        videos (Sequence[str | Path]): Files and folders.
        out (str | Path): The HDF5 file.
        workers (int): Videos that are worked on at the same time: by processes with an extractor
            each or, if it has ``threads``, by threads that decode and prepare batches for the
            one there is, a batch ahead. 0: one video after the other, nothing ahead. The features
            do not depend on it. Default: 2.
        progress (Callable | None): Called with (videos done, videos in all), in the first process.
        config (dict | None): Kept in the file: what the extractor can be built from.

    Returns:
        ExtractionReport: What could not be read, and what was unusual; empty in other processes.

    Raises:
        FeatureFileError: If two videos have one id, the file stems from other settings, or another
            run writes it.
    """
    others = Counter()
    found = find_videos(videos, others)
    report = ExtractionReport(others=dict(others))
    lock = FileLock(out)
    unlocked = _from_first(lock.acquire)
    try:
        file = FeatureFile(out, extractor.settings, config)
        barrier()  # until all have looked: from here on files appear
        _extract_all(extractor, found, file, workers, progress, report)
    finally:
        lock.release()
    if unlocked:
        report.remarks.append(
            f'{file.path} cannot be locked ({unlocked}): nothing kept another '
            'run from writing there'
        )
    return report if is_main_process() else ExtractionReport()


def _extract_all(
    extractor, found: dict[str, Path], file: FeatureFile, workers: int, progress, report
) -> None:
    """Extract what is not in the file yet, or is there of another video."""
    refused = {video: problem for video in found if (problem := name_problem(video))}
    marks = _from_first(partial(file.marks, found.keys() - refused))
    replaced = _from_first(
        lambda: {video for video, mark in marks.items() if mark and is_replaced(mark, found[video])}
    )
    done = refused.keys() | marks.keys() - replaced
    todo = sorted((job for job in found.items() if job[0] not in done), key=_size)
    if is_main_process() and (todo or file.parts.is_dir()):
        file.open_parts(video for video, _ in todo)
    total = len(found) - len(refused)
    bar = _Progress(progress if is_main_process() else None, file, len(todo), total)
    barrier()
    try:
        work, workers = partial(_extract, extractor, file, replaced), min(workers, len(todo))
        threads = extractor.threads and workers > 0
        for _ in (run_threads if threads else run_parallel)(work, todo, workers):
            bar.show()
        bar.until_all_are_done()
        barrier()
    except BaseException:
        if get_world_size() == 1:  # what is finished is of use at once; others may still be writing
            file.merge()
        raise
    if not is_main_process():
        return
    for video, problem in refused.items():
        message = f'{printable(found[video])}: its name {problem}; rename it'
        report.failures[printable(found[video].name)] = message
    report.failures |= file.failures()
    report.notes |= file.notes()
    if unmarked := sum(mark is None for mark in marks.values()):
        report.remarks.append(
            f'{unmarked} of the videos have features that do not tell which file '
            'they were made of: whether it was replaced since is not known'
        )
    file.merge()


def _size(job: tuple[str, Path]) -> tuple[int, str]:
    name, path = job
    return (-path.stat().st_size if path.is_file() else 0), name


def _extract(
    extractor,
    file: FeatureFile,
    replaced: set[str],
    job: tuple[str, Path],
    stop: threading.Event | None = None,
) -> None:
    """Features of one video; with ``stop`` in one thread of several, prepared a batch ahead."""
    name, path = job
    if not file.claim(name):
        return
    mark = video_mark(path)  # before it is read, lest it be replaced meanwhile
    try:
        reader = extractor.reader(path)
        if name in replaced:
            reader.notes[REPLACED] = 'made anew'
        with closing(extractor.blocks(reader, ahead=stop is not None)) as blocks:
            file.add(name, blocks if stop is None else _until(stop, blocks), mark, reader.notes)
    except VideoReadError as error:
        gone = '; the features of the video that had its name are removed'
        file.fail(name, f'{error}{gone if name in replaced else ""}')
    except _StopError:
        pass


class _StopError(Exception):
    """Others ended the run; what a video has so far is not whole."""


def _until(stop: threading.Event, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for block in blocks:
        if stop.is_set():
            raise _StopError
        yield block


def _from_first(ask: Callable[[], Any]) -> Any:
    """What the first process finds, or the error that it meets, in all of them."""
    found = [None, None]
    if is_main_process():
        try:
            found[0] = ask()
        except (FileInUseError, FeatureFileError, OSError) as error:
            found[1] = str(error)
    broadcast_object_list(found)
    if found[1] is not None:
        raise FeatureFileError(found[1])
    return found[0]


class _Progress:
    """Says how many videos are done, of all processes together."""

    def __init__(self, progress, file: FeatureFile, todo: int, total: int) -> None:
        self.progress, self.file, self.todo, self.total = progress, file, todo, total
        # what an earlier, killed run finished may lie there too
        self._before = file.count() if progress and todo else 0
        self._shown = 0.0
        self.show(force=True)

    def show(self, force: bool = False) -> None:
        """Count, but not more than a few times per second."""
        if self.progress and (force or time.monotonic() - self._shown > 0.2):
            self.progress(self.total - self.todo + self._done(), self.total)
            self._shown = time.monotonic()

    def until_all_are_done(self) -> None:
        """Wait for the other processes; the one that starts them ends this one if they die."""
        while self.progress and self._done() < self.todo:
            self.show()
            time.sleep(0.1)
        self.show(force=True)

    def _done(self) -> int:
        return self.file.count() - self._before if self.todo else 0
