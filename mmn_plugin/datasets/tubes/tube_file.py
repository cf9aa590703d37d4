"""Reading a tube file."""

import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from ..feature_store import change_of, describe_folder, file_version
from .tube_error import TubeError
from .tube_video import SOURCE, TubeVideo
from .write_tube_file import FORMAT, VERSION


class TubeFile:
    """Videos of an HDF5 file that `write_tube_file` wrote.

    The file is opened at the first read; the handle belongs to the process that opened it, so that
    forked workers open their own. A file that is replaced, written to or removed while it is in use
    is an error.

    Args:
        path (str | Path): The file.

    Raises:
        FileNotFoundError: If it does not exist; the message lists what is beside it.
        TubeError: If it is not a tube file.

    Attributes:
        version (tuple[int, ...]): What the file was when this was made.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._handle: h5py.File | None = None
        self._owner: int | None = None
        if not self.path.is_file():
            raise FileNotFoundError(
                f'tube file {self.path} does not exist; correct data_root or ann_file in the '
                'config, or make it as tools/data/hcstvg/README.md describes. '
                f'{describe_folder(self.path)}'
            )
        if self.path.suffix in ('.pkl', '.pickle', '.json'):
            raise TubeError(
                f'{self.path} is one of the published files, which are converted once: '
                'python tools/data/hcstvg/convert.py'
            )
        self.version = file_version(self.path)
        try:
            found = dict(self._file().attrs)
        except OSError as error:
            raise TubeError(
                f'{self.path} cannot be read as HDF5 ({error}); it is damaged or '
                'incomplete. Convert it again'
            ) from error
        if found.get('format') != FORMAT or found.get('version') != VERSION:
            raise TubeError(
                f'{self.path} is not a tube file of version {VERSION}; make it with '
                'tools/data/hcstvg/convert.py or tools/data/make_shapes_tubes.py'
            )

    def video_ids(self) -> list[str]:
        """Ids of all videos, sorted."""
        return sorted(self._file())

    def sentences(self, video_id: str) -> list[str]:
        """Sentences of a video."""
        return [text.decode() for text in self._group(video_id)['sentences'][()]]

    def num_tubes(self, video_id: str) -> int:
        """Number of candidate tubes of a video."""
        return len(self._group(video_id)['tubes'].attrs['lengths'])

    def streams(self, video_id: str) -> set[str]:
        """Names of the streams that a video has."""
        return set(self._group(video_id).get('features', ()))

    def has_truth(self, video_id: str) -> bool:
        """Whether the true tubes of a video are known."""
        return 'ground_truth' in self._group(video_id)

    def feature_sizes(self, video_id: str, streams: Sequence[str]) -> list[int]:
        """Size D of each stream, from the file's metadata.

        Raises:
            TubeError: If the video lacks a stream.
        """
        return [self._stream(video_id, stream).shape[1] for stream in streams]

    def read(
        self, video_id: str, streams: Sequence[str] = (), version: Sequence[int] | None = None
    ) -> TubeVideo:
        """One video, with the features of some streams.

        Args:
            video_id (str): The video.
            streams (Sequence[str]): Names of streams. Defaults to none.
            version (Sequence[int], optional): What the file has to be. Defaults to None: what it
                was when this was made.

        Returns:
            TubeVideo: Checked.

        Raises:
            TubeError: If the file has changed, video or stream are not there, or what is there
                cannot be used.
        """
        self._check_version(version)
        try:
            video = self._read(video_id, streams)
        finally:  # what a file that is being written to gives may look damaged
            self._check_version(version)
        video.check(f'{self.path}: video {video_id!r}')
        return video

    def _check_version(self, version: Sequence[int] | None) -> None:
        message = change_of(self.path, self.path, version or self.version)
        if message:
            raise TubeError(message)

    def _read(self, video_id: str, streams: Sequence[str]) -> TubeVideo:
        group = self._group(video_id)
        try:
            return TubeVideo(
                video_id,
                self.sentences(video_id),
                _parts(group['ground_truth']) if 'ground_truth' in group else [],
                _parts(group['tubes']),
                {stream: self._features(video_id, stream) for stream in streams},
                {name: float(group.attrs[name]) for name in SOURCE if name in group.attrs},
            )
        except (OSError, KeyError, RuntimeError) as error:
            raise TubeError(
                f'{self.path}: cannot read video {video_id!r} ({error}); the file is '
                'damaged. Convert it again'
            ) from error

    def close(self) -> None:
        """Close this process's handle; the next read opens the file again."""
        if self._handle is not None and self._owner == os.getpid():
            self._handle.close()
        self._handle = None

    def _file(self) -> h5py.File:
        if self._handle is None or self._owner != os.getpid():
            self._handle, self._owner = h5py.File(self.path, 'r'), os.getpid()
        return self._handle

    def _group(self, video_id: str) -> h5py.Group:
        found = self._file().get(video_id)
        if not isinstance(found, h5py.Group) or not {'sentences', 'tubes'} <= set(found):
            raise TubeError(
                f'{self.path} has no video {video_id!r}'
                if found is None
                else f'{self.path}: video {video_id!r} lacks sentences or tubes; the file '
                'is damaged. Convert it again'
            )
        return found

    def _features(self, video_id: str, stream: str) -> list[np.ndarray]:
        # a video without tubes need not have streams
        return _parts(self._stream(video_id, stream)) if self.num_tubes(video_id) else []

    def _stream(self, video_id: str, stream: str) -> h5py.Dataset:
        features = self._group(video_id).get('features', {})
        if stream not in features:
            raise TubeError(
                f'{self.path}: video {video_id!r} has no stream {stream!r}, but '
                f'{sorted(features)}; correct `streams` in the dataset config, or '
                'convert the file with that stream'
            )
        return features[stream]

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_handle': None, '_owner': None}


def _parts(dataset: h5py.Dataset) -> list[np.ndarray]:
    """What lies end to end, apart."""
    lengths = dataset.attrs['lengths']
    if not len(lengths):
        return []
    return np.split(dataset[()], np.cumsum(lengths)[:-1])
