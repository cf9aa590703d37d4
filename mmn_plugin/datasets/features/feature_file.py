"""The HDF5 file that clip features end up in."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np

from .feature_file_error import FeatureFileError
from .feature_part import FeaturePart

ROWS = 1024  # copied at once


class FeatureFile:
    """Collects features video by video and survives being killed at any moment.

    Finished videos first lie one by one in ``<name>.parts/``, where several processes may put them.
    :meth:`merge` writes them, with what the file already holds, into a new file and moves it to its
    place in one step. So the file is either absent or whole, and after a kill nothing that was
    finished is done again. A video's features are never in memory at once. Parts are named by
    digests, so that any id and any file system will do.

    The file has one dataset (T, D) float32 per video; it and each dataset carry the attributes
    ``extractor``, ``stride`` (frames) and ``fps`` (frames per second looked at), and ``config``, as
    JSON, if there is one; each dataset also ``video``, its mark (see `video_mark`), as JSON.

    Args:
        path (str | Path): The .h5 file.
        settings (dict): The attributes that must not differ.
        config (dict, optional): What the extractor can be built from. Defaults to None.

    Raises:
        FeatureFileError: If the file or its parts stem from other settings or cannot be read.
    """

    def __init__(self, path: str | Path, settings: dict, config: dict | None = None) -> None:
        self.path = Path(path)
        self.settings = settings
        self.attributes = dict(settings)
        if config is not None:
            self.attributes['config'] = json.dumps(config, default=str)
        self.parts = self.path.with_name(self.path.name + '.parts')
        self._in_file = self._check_file()
        self._check_parts()

    def _check_file(self) -> set[str]:
        if not self.path.exists():
            return set()
        try:
            with h5py.File(self.path) as file:
                found = {key: _plain(file.attrs.get(key)) for key in self.settings}
                names = set(file)
        except OSError as error:
            raise FeatureFileError(
                f'{self.path}: cannot be read as HDF5 ({error}); delete it or name another file'
            ) from error
        self._compare(found, self.path)
        return names

    def _check_parts(self) -> None:
        note = self.parts / 'settings.json'
        if note.is_file():
            self._compare(json.loads(note.read_text()), self.parts)
        elif self.parts.exists() and not (self.parts.is_dir() and not os.listdir(self.parts)):
            raise FeatureFileError(
                f'{self.parts} is where unfinished features go, and holds '
                'something else; move it away or name another file'
            )

    def _compare(self, found: dict, where: Path) -> None:
        if found != self.settings:
            raise FeatureFileError(
                f'{where} holds features made with {found}, asked for are '
                f'{self.settings}; delete it or name another file'
            )

    def finished(self) -> set[str]:
        """Ids of the videos that need no work any more."""
        return self._in_file | {video for video, _, _ in self._finished_parts()}

    def marks(self, videos: set[str]) -> dict[str, dict | None]:
        """Marks of the videos that features were made of, of some that are finished.

        Returns:
            dict[str, dict | None]: By id; None where the features do not tell.
        """
        found = dict.fromkeys(videos & self.finished())
        inside = found.keys() & self._in_file
        if inside:
            with h5py.File(self.path) as file:
                for video in inside:
                    mark = file[video].attrs.get('video')
                    found[video] = None if mark is None else json.loads(mark)
        found.update((video, mark) for video, mark, _ in self._finished_parts() if video in found)
        return found

    def open_parts(self, again: Iterable[str] = ()) -> None:
        """Make the folder that :meth:`add` writes to, and forget what an earlier run began.

        Args:
            again (Iterable[str]): Ids of videos whose finished parts are forgotten too.
        """
        self.parts.mkdir(parents=True, exist_ok=True)
        for video_id in again:
            self._part(video_id, 'npy').unlink(missing_ok=True)
            self._part(video_id, 'notes').unlink(missing_ok=True)
        for pattern in ('*.claim', '*.failed', '*.part'):
            for path in self.parts.glob(pattern):
                path.unlink()
        _write(self.parts / 'settings.json', self.settings)

    def claim(self, video_id: str) -> bool:
        """Whether the calling process is the first of all to ask for this video."""
        try:
            self._part(video_id, 'claim').touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def add(
        self, video_id: str, features: np.ndarray | Iterable[np.ndarray], mark: dict | None = None
    ) -> None:
        """Keep a video's features; may be called from several processes.

        Args:
            video_id (str): Name of the dataset.
            features (np.ndarray | Iterable[np.ndarray]): (T, D) float32, or parts (n, D) of it in
                their order, which are written one by one.
            mark (dict, optional): Of the video. Defaults to None.
        """
        blocks = [features] if isinstance(features, np.ndarray) else features
        unfinished, finished = self._part(video_id, 'part'), self._part(video_id, 'npy')
        FeaturePart(unfinished, video_id).write(blocks)
        finished.unlink(missing_ok=True)  # whose mark is another one
        _write(self._part(video_id, 'video'), dict(id=video_id, mark=mark))
        os.replace(unfinished, finished)

    def fail(self, video_id: str, message: str) -> None:
        """Keep why a video has no features; :meth:`merge` removes those of an earlier video."""
        self._part(video_id, 'part').unlink(missing_ok=True)
        _write(self._part(video_id, 'failed'), dict(id=video_id, message=message))

    def note(self, video_id: str, notes: dict[str, str]) -> None:
        """Keep what was unusual about a video that has features."""
        if notes:
            _write(self._part(video_id, 'notes'), dict(id=video_id, notes=notes))

    def failures(self) -> dict[str, str]:
        """Video id -> message, of this run and all its processes."""
        return {found['id']: found['message'] for found in self._read('*.failed')}

    def notes(self) -> dict[str, dict[str, str]]:
        """Video id -> notes, of the videos that the next :meth:`merge` will move."""
        return {found['id']: found['notes'] for found in self._read('*.notes')}

    def count(self) -> int:
        """How many videos have come to an end in the parts' folder."""
        return sum(name.endswith(('.npy', '.failed')) for name in os.listdir(self.parts))

    def _part(self, video_id: str, kind: str) -> Path:
        return self.parts / f'{hashlib.sha256(video_id.encode()).hexdigest()[:32]}.{kind}'

    def _read(self, pattern: str) -> Iterator[dict]:
        for path in sorted(self.parts.glob(pattern)):
            yield json.loads(path.read_text())

    def _finished_parts(self) -> list[tuple[str, dict | None, FeaturePart]]:
        found = [
            (content['id'], content['mark'], self._part(content['id'], 'npy'))
            for content in self._read('*.video')
        ]
        return sorted(
            (
                (video, mark, FeaturePart(path, video))
                for video, mark, path in found
                if path.is_file()
            ),
            key=lambda part: part[0],
        )

    def merge(self) -> None:
        """Move what :meth:`add` kept into the file and remove the parts."""
        if not self.parts.is_dir():
            return
        unfinished = self.path.with_name(self.path.name + '.part')
        if self.path.exists():
            shutil.copyfile(self.path, unfinished)
        with h5py.File(unfinished, 'a' if self.path.exists() else 'w') as file:
            file.attrs.update(self.attributes)
            parts = self._finished_parts()
            for video in {*self.failures(), *(video for video, _, _ in parts)} & set(file):
                del file[video]  # of a video that another one has replaced
            for _, mark, part in parts:
                self._copy(part, mark, file)
            self._in_file = set(file)
        os.replace(unfinished, self.path)
        shutil.rmtree(self.parts)

    def _copy(self, part: FeaturePart, mark: dict | None, file: h5py.File) -> None:
        dataset, row = None, 0
        for shape, rows in part.read(ROWS):
            if dataset is None:
                dataset = file.create_dataset(part.name, shape, np.float32)
                dataset.attrs.update(self.attributes)
                if mark is not None:
                    dataset.attrs['video'] = json.dumps(mark)
            dataset[row : row + len(rows)] = rows
            row += len(rows)


def _write(path: Path, content: dict) -> None:
    unfinished = path.with_name(path.name + '.part')
    unfinished.write_text(json.dumps(content))
    os.replace(unfinished, path)


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def name_problem(video_id: str) -> str | None:
    """Why a video cannot be stored under its name, or None."""
    try:
        video_id.encode()
    except UnicodeEncodeError:
        return 'holds bytes that are no UTF-8'
    # "." stands for the file itself, and what a slash would divide are groups
    return 'cannot be that of an entry' if video_id in ('', '.') or '/' in video_id else None
