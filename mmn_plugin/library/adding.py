"""Adding videos to a library: files, features, embeddings, and what could not be added."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, count
from pathlib import Path

import h5py

from mmn_plugin.apis.video_input import (
    VideoFeatures,
    is_entry,
    plain_video,
    split_entry,
    video_name,
)
from mmn_plugin.datasets.feature_store import FolderFeatureStore
from mmn_plugin.errors import InputError, MissingFileError, UserError
from mmn_plugin.features import ExtractionReport, extract_videos, probe_video
from mmn_plugin.features.extraction import SHOWN
from mmn_plugin.features.feature_file import is_replaced, video_mark
from mmn_plugin.features.video import VIDEO_SUFFIXES
from mmn_plugin.files import printable
from mmn_plugin.structures import VideoEmbedding

from .moment_store import StoredVideo

HDF5 = ('.h5', '.hdf5')
INCOMING = 'incoming.h5'  # features of videos that are being added
TOGETHER = 8  # videos that are encoded at a time
MOMENTS, SECONDS = 50_000, 20.0  # after which what is embedded is committed


@dataclass(frozen=True)
class Source:
    """A video that can be added.

    Attributes:
        path (str): Absolute path of its file; of features ``FILE.h5::ENTRY``, or ``FOLDER::NAME``.
        folder (str): Folder of the file below the one that was named, or where it lies in that one,
            or was named itself, the name of its folder.
        name (str): What it is called where nothing else has that name.
    """

    path: str
    folder: str
    name: str

    @property
    def is_features(self) -> bool:
        """Whether it comes as features."""
        return is_entry(self.path)

    @property
    def file(self) -> Path:
        """The file that its content lies in."""
        if not self.is_features:
            return Path(self.path)
        path, entry = split_entry(self.path)
        if Path(path).is_dir():
            found = (Path(path, entry + end) for end in FolderFeatureStore.SUFFIXES)
            return next((file for file in found if file.is_file()), Path(path, entry))
        return Path(path)

    @property
    def problem(self) -> str | None:
        """Why no library can hold it, or None."""
        try:
            f'{self.path}{self.folder}{self.name}'.encode()
        except UnicodeEncodeError:
            return f'{printable(self.path)}: its name holds bytes that are no UTF-8; rename it'
        return None


def find_sources(given, report: 'LibraryReport') -> list[Source]:
    """Videos at one or several paths.

    Args:
        given: Path of a video, a folder of videos (with those below it), an HDF5 file of features
            or ``FILE.h5::ENTRY``, a folder of features (``.npy`` and so on); or several.
        report (LibraryReport): Gets the counts of the folders' other files by suffix.

    Raises:
        ValueError: If a folder holds neither videos nor features, or a file of features cannot be
            read.
    """
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)
    found: dict[str, Source] = {}
    others = Counter()
    for one in given if several else [given]:
        for source in _sources(plain_video(one), others):
            found.setdefault(source.path, source)
    report.extraction.others = dict(others)
    return list(found.values())


def _sources(given, others: Counter) -> list[Source]:
    if not isinstance(given, str | Path):
        raise InputError(f'a library is made of files, and {given!r:.60} is no path')
    if is_entry(given):
        return [_features(*split_entry(given))]
    path = Path(given).absolute()
    if path.is_dir():
        return _in_folder(path, others)
    if path.suffix.lower() in HDF5:
        return [_features(str(path), entry) for entry in _entries(path)]
    return [Source(str(path), path.parent.name, video_name(path))]


def _features(file: str, entry: str) -> Source:
    path = Path(file).absolute()
    folder = path.name if path.is_dir() else path.parent.name
    return Source(f'{path}::{entry}', folder, entry.partition('/')[0])


def _in_folder(folder: Path, others: Counter) -> list[Source]:
    files = [file for file in sorted(folder.rglob('*')) if file.is_file()]
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    if not videos:
        names = {file.stem for file in files if file.suffix in FolderFeatureStore.SUFFIXES}
        if not names:
            kinds = ', '.join((*VIDEO_SUFFIXES, *FolderFeatureStore.SUFFIXES))
            raise InputError(f'{folder}: no video and no features in this folder ({kinds})')
        return [_features(str(folder), name) for name in sorted(names)]
    others.update(printable(file.suffix.lower()) for file in {*files} - {*videos})
    places = [(file, file.parent.relative_to(folder).as_posix()) for file in videos]
    return [
        Source(str(file), folder.name if place == '.' else place, video_name(file))
        for file, place in places
    ]


def _entries(path: Path) -> list[str]:
    """Names of the arrays of an HDF5 file, one for each of its videos."""
    if not path.is_file():
        raise MissingFileError(f'there is no file of features {path}')
    try:
        with h5py.File(path) as file:
            names = []
            for name, entry in file.items():
                inside = [name]
                if isinstance(entry, h5py.Group):
                    inside = [f'{name}/{key}' for key in entry]
                if len(inside) != 1:
                    raise InputError(
                        f'{path}: {name!r} holds {len(inside)} arrays; name one of each video as '
                        f'{path.name}::{name}/ARRAY'
                    )
                names += inside
            return names
    except OSError as error:
        raise InputError(f'{path}: cannot be read as HDF5 ({error})') from error


@dataclass
class LibraryReport:
    """What was done, by ids of videos.

    Attributes:
        added (list[str]): New ones.
        replaced (list[str]): Embedded anew.
        unchanged (list[str]): There already, and as they were.
        changed (list[str]): There already, of files that have changed since, and left as they were.
        missing (list[str]): In the library, of files that are gone.
        removed (list[str]): Taken out.
        extraction (ExtractionReport): What could not be read, and what was unusual.
    """

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    extraction: ExtractionReport = field(default_factory=ExtractionReport)

    @property
    def failures(self) -> dict[str, str]:
        """Video -> why it could not be added."""
        return self.extraction.failures

    def lines(self) -> list[str]:
        """The report as text."""
        said = dict(
            added='',
            replaced=' embedded anew',
            removed=' removed',
            unchanged=' there already',
            changed=' there already, of files that have changed: `mmn library update` embeds anew',
            missing=' of files that are gone: `mmn library update --remove-missing` removes them',
        )
        lines = []
        for kind, text in said.items():
            ids = getattr(self, kind)
            if ids and kind in ('changed', 'missing'):
                more = f' and {len(ids) - SHOWN} more' if len(ids) > SHOWN else ''
                text += f' ({", ".join(ids[:SHOWN])}{more})'
            if ids:
                lines.append(f'{len(ids)} videos{text or " added"}')
        told = self.extraction.lines()
        return lines + [line.replace(' and are not in the file', '') for line in told]


class Adder:
    """Adds videos to a library, a few at a time; what was committed stays after a kill.

    Args:
        library (MomentLibrary): The library.
        report (LibraryReport): Filled in.
        durations (Mapping[str, float], optional): Seconds by name, of features that do not tell.
        progress (Callable, optional): ``progress(title)`` is a context manager, whose value is
            called with what is done and what is to be done: `ProgressBar`.
        update (bool): Whether videos are embedded anew whose files have changed; they are as long
            as they were where neither ``durations`` nor the features tell. Defaults to False.
    """

    def __init__(
        self, library, report: LibraryReport, durations=None, progress=None, update: bool = False
    ) -> None:
        self.library, self.report, self.update = library, report, update
        self.durations = durations or {}
        self.progress: Callable = progress or (lambda title: nullcontext())
        self._before = library.store.snapshot()
        self._batch: list[StoredVideo] = []
        self._since = time.monotonic()
        self._mark = lru_cache(8)(video_mark)  # of a file of features for all its entries

    def add(self, sources: Iterable[Source], workers: int | None = None) -> None:
        """Embed videos that are new, or have changed, and put them into the library.

        Args:
            sources (Iterable[Source]): The videos.
            workers (int, optional): As of `extract_videos`. Defaults to None: the extractor's.
        """
        named = self._sort_out(self._named(sources))
        if not named:
            return
        videos = {id_: source for id_, source in named.items() if not source.is_features}
        if videos:
            self._extract(videos, workers)
        good = [pair for pair in named.items() if pair[0] not in self.report.failures]
        with self.progress('videos embedded') as bar:
            for done, (video_id, source, video) in enumerate(self._embedded(good), 1):
                if video is not None:
                    self._keep(video_id, source, video)
                if bar is not None:
                    bar(done, len(good))
            self._commit()
        self._forget(videos.values())
        with self.progress('presence measured') as bar:
            if bar is not None:
                bar(0, 1)
            self.library.presence.measured()
            if bar is not None:
                bar(1, 1)

    def _named(self, sources: Iterable[Source]) -> dict[str, Source]:
        """Sources by the ids that they get.

        A video that is in the library keeps its id; and so does one that was moved, as a video of
        its name whose file is gone. Another one of the same name is called ``FOLDER/NAME``, or
        numbered.
        """
        taken = {row.video_id: row.path for row in self._before.videos.values()}
        by_path = {path: video_id for video_id, path in taken.items() if path}
        named: dict[str, Source] = {}
        for source in sources:
            if source.problem:
                self._fail(printable(source.name), source.problem)
            elif source.path in by_path:
                named[by_path[source.path]] = source
            else:
                longer = f'{source.folder}/{source.name}'
                for name in chain((source.name, longer), (f'{longer}-{n}' for n in count(2))):
                    old = taken.get(name)
                    gone = bool(old) and not Source(old, '', '').file.exists()
                    if name not in named and (old is None or gone):
                        named[name] = source
                        break
        return named

    def _sort_out(self, named: Mapping[str, Source]) -> dict[str, Source]:
        """Sources that have to be embedded; the others are entered into the report."""
        todo = {}
        for video_id, source in named.items():
            row = self._before.by_id.get(video_id)
            mark = None if row is None else row.meta.get('mark')
            if row is None or row.path != source.path:
                todo[video_id] = source
            elif not source.file.exists():
                self.report.missing.append(video_id)
            elif mark is None or not is_replaced(mark, source.file):
                self.report.unchanged.append(video_id)
            elif self.update:
                todo[video_id] = source
            else:
                self.report.changed.append(video_id)
        return todo

    @property
    def _incoming(self) -> Path:
        return self.library.folder / INCOMING

    def _extract(self, videos: Mapping[str, Source], workers: int | None) -> None:
        extractor = self.library.model.extractor
        self.library.require_extractor(extractor.fingerprint, 'the extractor of the model')
        ids = {_key(source): video_id for video_id, source in videos.items()}
        with self.progress('features') as bar:
            found = extract_videos(
                extractor,
                {key: Path(videos[video_id].path) for key, video_id in ids.items()},
                self._incoming,
                extractor.workers if workers is None else workers,
                bar,
                tell=getattr(bar, 'set_note', None),
            )
        report = self.report.extraction
        report.failures |= {ids.get(key, key): why for key, why in found.failures.items()}
        report.notes |= {ids.get(key, key): notes for key, notes in found.notes.items()}
        report.remarks += found.remarks
        report.speed = found.speed

    def _forget(self, done: Iterable[Source]) -> None:
        """Remove the features, unless there are some of videos that an earlier run was to add."""
        if not self._incoming.is_file():
            return
        with h5py.File(self._incoming) as file:
            left = set(file) - set(map(_key, done))
        if not left:
            self._incoming.unlink()

    def _embedded(self, named: list[tuple[str, Source]]) -> Iterator[tuple]:
        """(id, source, embedding, or None where it failed) of each video."""
        for first in range(0, len(named), TOGETHER):
            part, read = named[first : first + TOGETHER], []
            for video_id, source in part:
                try:
                    read.append((video_id, source, self._features(video_id, source)))
                except (UserError, OSError) as error:
                    self._fail(video_id, error)
                    yield video_id, source, None
            try:
                encoded = self.library.model.video_encoder([features for *_, features in read])
            except UserError:  # of one of them
                encoded = [None] * len(read)
            for (video_id, source, features), video in zip(read, encoded, strict=True):
                try:
                    if video is None:
                        (video,) = self.library.model.video_encoder([features])
                    yield video_id, source, self.library.units(video)
                except UserError as error:
                    self._fail(video_id, error)
                    yield video_id, source, None

    def _features(self, video_id: str, source: Source) -> VideoFeatures:
        if source.is_features:
            duration = self.durations.get(source.name)
            try:
                features = VideoFeatures.of(source.path, None, duration, video_id)
            except InputError:
                old = self._before.by_id.get(video_id)
                if old is None or not self.update:
                    raise
                features = VideoFeatures.of(source.path, None, old.duration, video_id)
            self.library.require_extractor(features.fingerprint, f'the features {source.path}')
            return features
        extractor = self.library.model.extractor
        duration = probe_video(source.path).duration
        with h5py.File(self._incoming) as file:
            values = file[_key(source)][()]
        return VideoFeatures(video_id, values, duration, extractor.stride / extractor.fps)

    def _keep(self, video_id: str, source: Source, video: VideoEmbedding) -> None:
        mark = self._mark(source.file)
        modified = None if mark is None else mark['mtime'] / 1e9
        self._batch.append(
            StoredVideo(
                video_id,
                source.path,
                source.folder,
                video.duration,
                modified,
                dict(mark=mark),
                video,
            )
        )
        moments = sum(len(one.embedding.spans) for one in self._batch)
        if moments >= MOMENTS or time.monotonic() - self._since > SECONDS:
            self._commit()

    def _commit(self) -> None:
        batch, self._batch, self._since = self._batch, [], time.monotonic()
        self._store(batch)

    def _store(self, batch: list[StoredVideo]) -> None:
        if not batch:
            return
        known = self.library.store.snapshot().by_id
        try:
            self.library.store.add(batch, replace=True)
        except InputError as error:
            if len(batch) == 1:
                self._fail(batch[0].video_id, error)
            else:  # the others are as good as before
                for one in batch:
                    self._store([one])
            return
        for one in batch:
            kind = self.report.replaced if one.video_id in known else self.report.added
            kind.append(one.video_id)

    def _fail(self, video_id: str, error: Exception | str) -> None:
        self.report.extraction.failures[video_id] = str(error)


def _key(source: Source) -> str:
    """Name of a video among the features: its path, whatever characters that has."""
    return hashlib.sha256(source.path.encode()).hexdigest()[:32]
