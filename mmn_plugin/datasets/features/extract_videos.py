"""Features of many videos into one file."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmn_plugin.features import VIDEO_SUFFIXES, VideoReadError
from mmn_plugin.files import FileInUseError, FileLock, printable

from .extraction_report import ExtractionReport
from .feature_file import FeatureFile, name_problem
from .feature_file_error import FeatureFileError
from .fingerprint import is_replaced, video_mark
from .parallel import run_parallel, run_threads

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
    for path in map(Path, paths):
        files = [path]
        if path.is_dir():
            inside = sorted(file for file in path.rglob('*') if file.is_file())
            files = [file for file in inside if file.suffix.lower() in VIDEO_SUFFIXES]
            if others is not None:
                others.update(
                    printable(file.suffix.lower())
                    for file in inside
                    if file.suffix.lower() not in VIDEO_SUFFIXES
                )
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

    Where ``torch.distributed`` is initialised all its processes share the videos, the longest files
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
    group, lock = _Group(), FileLock(out)
    unlocked = group.from_first(lock.acquire)
    try:
        file = FeatureFile(out, extractor.settings, config)
        group.wait()  # until all have looked: from here on files appear
        report = _extract_all(extractor, found, file, workers, progress, group)
    finally:
        lock.release()
    if not group.first:
        return ExtractionReport()
    report.others = dict(others)
    if unlocked:
        report.remarks.append(
            f'{file.path} cannot be locked ({unlocked}): nothing kept another '
            'run from writing there'
        )
    return report


def _extract_all(
    extractor, found: dict[str, Path], file: FeatureFile, workers: int, progress, group: '_Group'
) -> ExtractionReport:
    """Extract what is not in the file yet, or is there of another video."""
    refused = {
        printable(path.name): f'{printable(path)}: its name {problem}; rename it'
        for video, path in found.items()
        if (problem := name_problem(video))
    }
    found = {video: path for video, path in found.items() if not name_problem(video)}
    marks = group.from_first(partial(file.marks, set(found)))
    replaced = group.from_first(
        lambda: {video for video, mark in marks.items() if mark and is_replaced(mark, found[video])}
    )
    todo = sorted(
        (job for job in found.items() if job[0] not in marks or job[0] in replaced), key=_size
    )
    if group.first and (todo or file.parts.is_dir()):
        file.open_parts(video for video, _ in todo)
    bar = _Progress(progress if group.first else None, file, len(todo), len(found))
    group.wait()
    try:
        work, workers = partial(_extract, extractor, file, replaced), min(workers, len(todo))
        threads = extractor.threads and workers > 0
        for _ in (run_threads if threads else run_parallel)(work, todo, workers):
            bar.show()
        bar.until_all_are_done()
        group.wait()
    except BaseException:
        if not group.several:  # what is finished is of use at once; others may still be writing
            file.merge()
        raise
    if not group.first:
        return ExtractionReport()
    report = ExtractionReport({**refused, **file.failures()}, file.notes())
    unmarked = sum(mark is None for mark in marks.values())
    if unmarked:
        report.remarks.append(
            f'{unmarked} of the videos have features that do not tell which file '
            'they were made of: whether it was replaced since is not known'
        )
    file.merge()
    return report


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
        with closing(extractor.blocks(reader, ahead=0 if stop is None else 1)) as blocks:
            file.add(name, blocks if stop is None else _until(stop, blocks), mark)
        file.note(name, {**reader.notes, **({REPLACED: 'made anew'} if name in replaced else {})})
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


class _Group:
    """The processes that share the work."""

    def __init__(self) -> None:
        self.several = self.first = False
        torch = sys.modules.get('torch')  # without it nothing can be distributed
        if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
            self.several = torch.distributed.get_world_size() > 1
            self.first = torch.distributed.get_rank() == 0
        self.first = self.first or not self.several

    def wait(self) -> None:
        if self.several:
            sys.modules['torch'].distributed.barrier()

    def from_first(self, ask: Callable[[], Any]) -> Any:
        """What the first process finds, or the error that it meets, in all of them."""
        found = [None, None]
        if self.first:
            try:
                found[0] = ask()
            except (FileInUseError, FeatureFileError, OSError) as error:
                found[1] = str(error)
        if self.several:
            sys.modules['torch'].distributed.broadcast_object_list(found)
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
