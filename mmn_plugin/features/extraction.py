"""Extract the features of many videos, in threads or processes, with a report."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.dist import (
    all_gather_object,
    barrier,
    broadcast_object_list,
    get_world_size,
    is_main_process,
)
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from mmn_plugin.files import printable
from mmn_plugin.locks import FileInUseError, FileLock

from .feature_file import (
    FeatureFile,
    FeatureFileError,
    RowWriter,
    is_replaced,
    name_problem,
    video_mark,
)
from .pipeline import END, Ahead, InTurn, Timing, described
from .processes import run_parallel
from .video import VIDEO_SUFFIXES, VideoReader
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
        speed (dict[str, float]): ``frames`` that were described in how many ``seconds`` of all
            processes together, ``frames_per_second``, and the shares of the time in which networks
            were ``waiting`` for frames and ``computing``. Empty where there was nothing to do.
    """

    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    speed: dict[str, float] = field(default_factory=dict, compare=False)

    def lines(self) -> list[str]:
        """The report as text: notes by kind with the first few videos, failures one by one."""
        lines, kinds = list(self.remarks), defaultdict(list)
        if self.speed:
            lines.append(
                f'{self.speed["frames"]:,} frames in {self.speed["seconds"]:.1f} s: '
                f'{speed_text(self.speed)}'
            )
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


def speed_text(speed: dict[str, float]) -> str:
    """Frames per second, and what the time went to, of a `speed` of a report."""
    return (
        f'{speed["frames_per_second"]:,.0f} frames per second, {100 * speed["waiting"]:.0f} % of '
        f'the time waiting for frames, {100 * speed["computing"]:.0f} % computing'
    )


class ProgressBar:
    """A rich progress bar with a title behind a plain callback; a context manager.

    Where the output is no terminal it prints a line at each tenth instead.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._console = Console(stderr=True)
        self._note = ''
        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        self._bar = Progress(*columns, TextColumn('{task.fields[note]}'), console=self._console)
        self._task = self._bar.add_task(title, total=None, note='')
        self._said = -1

    def set_note(self, note: str) -> None:
        """Show a note beside the bar from the next call on."""
        self._note = note

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
            self._bar.update(self._task, completed=done, total=total, note=self._note)
        elif (tenth := 10 * done // max(total, 1)) > self._said:
            self._said = tenth
            note = f' ({self._note})' if self._note else ''
            self._console.print(f'{self.title}: {done} of {total}{note}', soft_wrap=True)


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
    videos: Sequence[str | Path] | Mapping[str, Path],
    out: str | Path,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    config: dict | None = None,
    tell: Callable[[str], None] | None = None,
) -> ExtractionReport:
    """Write the features of videos into an HDF5 file, or go on where an earlier run stopped.

    Where ``torch.distributed`` is initialized all its processes share the videos, the longest files
    first; they must see the same folder. The first process merges and reports.

    Args:
        extractor (FeatureExtractor): What describes a video.
        videos (Sequence[str | Path] | Mapping[str, Path]): Files and folders; or files by the ids
            that they get.
        out (str | Path): The HDF5 file.
        workers (int): Videos that are decoded at the same time: by threads ahead of the network
            (see `Ahead`) if the extractor has ``threads``, or with 1; else by processes with an
            extractor each. 0: one step after the other, nothing ahead. The features do not depend
            on it. Default: 2.
        progress (Callable | None): Called with (videos done, videos in all), in the first process.
        config (dict | None): Kept in the file: what the extractor can be built from.
        tell (Callable | None): Called before ``progress`` with the speed so far, as text.

    Returns:
        ExtractionReport: What could not be read, what was unusual, and the speed; empty in other
        processes.

    Raises:
        FeatureFileError: If two videos have one id, the file stems from other settings, or another
            run writes it.
    """
    others = Counter()
    found = dict(videos) if isinstance(videos, Mapping) else find_videos(videos, others)
    report = ExtractionReport(others=dict(others))
    lock = FileLock(out)
    unlocked = _from_first(lock.acquire)
    try:
        file = FeatureFile(out, extractor.settings, config)
        barrier()  # until all have looked: from here on files appear
        _extract_all(extractor, found, file, workers, progress, tell, report)
    finally:
        lock.release()
    if unlocked:
        report.remarks.append(
            f'{file.path} cannot be locked ({unlocked}): nothing kept another '
            'run from writing there'
        )
    return report if is_main_process() else ExtractionReport()


def _extract_all(
    extractor,
    found: dict[str, Path],
    file: FeatureFile,
    workers: int,
    progress: Callable[[int, int], None] | None,
    tell: Callable[[str], None] | None,
    report: ExtractionReport,
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
    bar = _Progress(progress, tell, file, len(todo), len(found) - len(refused))
    barrier()
    work, workers = _Extraction(extractor, file, replaced), min(workers, len(todo))
    try:
        for timing in work.run(todo, workers):
            bar.show(timing)
        bar.until_all_are_done()
        barrier()
    except BaseException:
        if get_world_size() == 1:  # what is finished is of use at once; others may still be writing
            file.merge()
        raise
    timings = all_gather_object(work.timing)
    if not is_main_process():
        return
    if todo:
        report.speed = sum(timings, Timing()).speed(bar.seconds)
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


@dataclass(eq=False)
class _Video:
    """A video on its way; it has a writer from when this process takes it until it has ended."""

    name: str
    path: Path
    reader: VideoReader | None = None
    writer: RowWriter | None = None
    rows: int = 0

    def leave(self) -> None:
        """Let go of what is large or open."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


class _Extraction:
    """Makes features of videos and keeps them, with a ``timing`` of what this process did."""

    def __init__(self, extractor, file: FeatureFile, replaced: set[str]) -> None:
        self.extractor, self.file, self.replaced = extractor, file, replaced
        self.timing = Timing()

    def run(self, jobs: Sequence[tuple[str, Path]], workers: int) -> Iterator[Timing]:
        """Work in threads or processes; yields the timing, whenever there is news."""
        if self.extractor.threads or workers < 2:
            yield from self._describe([_Video(*job) for job in jobs], workers)
            return
        for _, timing in run_parallel(self._one, jobs, workers):
            self.timing += timing
            yield self.timing

    def _one(self, job: tuple[str, Path]) -> Timing:
        self.timing = Timing()
        for _ in self._describe([_Video(*job)], 0):
            pass
        return self.timing

    def _describe(self, videos: list[_Video], threads: int) -> Iterator[Timing]:
        source = partial(Ahead, threads=threads) if threads else InTurn
        prepared = source(videos, self._batches)
        try:
            start = self.extractor.start_batch
            with closing(described(start, prepared, self.timing)) as blocks:
                for video, block in blocks:
                    try:
                        self._keep(video, block)
                    except VideoReadError as error:
                        self._fail(video, error)
                    yield self.timing
        finally:
            for video in videos:
                video.leave()

    def _batches(self, video: _Video) -> Generator:
        if not self.file.claim(video.name):
            return
        mark = video_mark(video.path)  # before it is read, lest it be replaced meanwhile
        video.writer = self.file.writer(video.name, mark)
        video.reader = reader = self.extractor.reader(video.path)
        if video.name in self.replaced:
            reader.notes[REPLACED] = 'made anew'
        with closing(self.extractor.batches(reader)) as batches, suppress(StopIteration):
            while video.writer is not None:
                yield next(batches)  # under no name: it shall not outlive its use

    def _keep(self, video: _Video, block: Any) -> None:
        """Write rows, or do what comes after the last ones."""
        if isinstance(block, BaseException) and not isinstance(block, VideoReadError):
            raise block
        if video.writer is None:  # it has failed, or another process has it
            return
        if isinstance(block, VideoReadError):
            raise block
        if block is END:
            video.writer.end(video.reader.notes)
            video.leave()
            return
        video.writer.write(block)
        stride, before, video.rows = self.extractor.stride, video.rows, video.rows + len(block)
        self.timing.frames += min(video.rows * stride, video.reader.given) - before * stride

    def _fail(self, video: _Video, error: VideoReadError) -> None:
        video.leave()
        gone = '; the features of the video that had its name are removed'
        self.file.fail(video.name, f'{error}{gone if video.name in self.replaced else ""}')


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
    """Says how many videos are done, of all processes together, and how fast this one is.

    It counts from its making on, which is once the parts of what is to be done are gone.
    """

    def __init__(self, progress, tell, file: FeatureFile, todo: int, total: int) -> None:
        self.progress = progress if is_main_process() else None
        self.tell, self.file, self.todo, self.total = tell, file, todo, total
        self._timing: Timing | None = None
        # what an earlier, killed run finished may lie there too
        self._before = self.file.count() if self.progress and todo else 0
        self._began = time.monotonic()
        self._shown = 0.0
        self.show(force=True)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def show(self, timing: Timing | None = None, force: bool = False) -> None:
        """Count, but not more than a few times per second."""
        self._timing = timing or self._timing
        if self.progress and (force or time.monotonic() - self._shown > 0.2):
            if self.tell and self._timing is not None:
                self.tell(speed_text(self._timing.speed(self.seconds)))
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
