"""Features of many videos into one file."""
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from .feature_file import FeatureFile
from .feature_file_error import FeatureFileError
from .parallel import run_parallel
from .video_read_error import VideoReadError

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mkv', '.webm', '.mov', '.m4v', '.mpg', '.mpeg', '.flv', '.wmv')


def find_videos(paths: Iterable[str | Path]) -> dict[str, Path]:
    """List videos by id, which is the file's name without suffix.

    Args:
        paths (Iterable[str | Path]): Video files, and folders whose videos are all taken.

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
            files = sorted(f for f in path.rglob('*') if f.suffix.lower() in VIDEO_SUFFIXES)
            if not files:
                raise FeatureFileError(f'{path}: no video in this folder (looked for '
                                       f'{", ".join(VIDEO_SUFFIXES)})')
        for file in files:
            if videos.setdefault(file.stem, file) != file:
                raise FeatureFileError(f'{videos[file.stem]} and {file} would both be called '
                                       f'{file.stem!r} in the feature file; rename one')
    return videos


def extract_videos(extractor, videos: Sequence[str | Path], out: str | Path, workers: int = 2,
                   progress: Callable[[int, int], None] | None = None) -> dict[str, str]:
    """Write the features of videos into an HDF5 file, or go on where an earlier run stopped.

    Args:
        extractor (Callable): Video file -> (T, D) array; has ``settings`` (see
            :class:`FeatureFile`).
        videos (Sequence[str | Path]): Files and folders.
        out (str | Path): The HDF5 file.
        workers (int): Processes. Default: 2.
        progress (Callable | None): Called with (videos done, videos in all).

    Returns:
        dict[str, str]: Video id -> message, for the videos that could not be read.

    Raises:
        FeatureFileError: If two videos have one id, or the file stems from other settings.
    """
    found = find_videos(videos)
    file = FeatureFile(out, extractor.settings)
    finished = file.finished() & set(found)
    todo = [(name, path) for name, path in found.items() if name not in finished]
    failures = {}
    if progress:
        progress(len(finished), len(found))
    if todo:
        file.open_parts()
    try:
        results = run_parallel(partial(_extract, extractor, file), todo, min(workers, len(todo)))
        for done, ((name, _), message) in enumerate(results, len(finished) + 1):
            if message:
                failures[name] = message
            if progress:
                progress(done, len(found))
    finally:
        # Also after an interruption: what is finished is of use at once.
        file.merge()
    return dict(sorted(failures.items()))


def _extract(extractor, file: FeatureFile, job: tuple[str, Path]) -> str | None:
    name, path = job
    try:
        file.add(name, extractor(path))
    except VideoReadError as error:
        return str(error)
    return None
