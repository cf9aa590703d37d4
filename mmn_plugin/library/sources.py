"""What is added to a library: videos in files and folders, and files of features."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py

from mmn_plugin.apis.video_input import is_entry, plain_video, split_entry, video_name
from mmn_plugin.datasets.feature_store import FolderFeatureStore
from mmn_plugin.errors import InputError, MissingFileError
from mmn_plugin.features.video import VIDEO_SUFFIXES
from mmn_plugin.files import printable

HDF5 = ('.h5', '.hdf5')


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


def find_sources(given, others: Counter | None = None) -> list[Source]:
    """Videos at one or several paths.

    Args:
        given: Path of a video, a folder of videos (with those below it), an HDF5 file of features
            or ``FILE.h5::ENTRY``, a folder of features (``.npy`` and so on); or several.
        others (Counter, optional): Counts the folders' other files by suffix. Defaults to None.

    Raises:
        ValueError: If a folder holds neither videos nor features, or a file of features cannot be
            read.
    """
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)
    found: dict[str, Source] = {}
    for one in given if several else [given]:
        for source in _sources(plain_video(one), Counter() if others is None else others):
            found.setdefault(source.path, source)
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
