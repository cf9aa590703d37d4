"""Tubes of boxes with features and sentences, in HDF5."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from mmengine.logging import print_log

from mmn_plugin.errors import InputError, MissingFileError
from mmn_plugin.features import VideoInfo
from mmn_plugin.files import replacing

from .feature_store import HDF5File, describe_folder


class TubeError(InputError):
    """Tubes, or their features, that cannot be used; the message names file and video."""


# What may be known of the video that tubes were made on -> share by which another one may differ.
SOURCE = dict(fps=0.02, num_frames=0.01, width=0.0, height=0.0)


@dataclass
class TubeVideo:
    """One video of a tube file.

    A tube is (n, 5) float32: frame, x1, y1, x2, y2; one row per frame that has a box, frames
    rising. A frame's number counts the video's pictures from 0, as `VideoInfo.times` does, whatever
    its rate; boxes are in pixels of an upright picture. Frames may be missing: such a frame has no
    box, and counts as none. Boxes may reach beyond the picture; they are taken as they are.

    Attributes:
        video_id (str): Name of the video.
        sentences (list[str]): s sentences, one in HC-STVG.
        ground_truth (list[np.ndarray]): Each sentence's true tube; empty where it is not known.
        tubes (list[np.ndarray]): T candidate tubes.
        features (dict[str, list[np.ndarray]]): Stream -> one (rows, D) float32 per tube. Streams
            may have different numbers of rows: each covers the whole tube.
        source (dict[str, float]): What is known of the video that the tubes were made on: some of
            ``fps``, ``num_frames``, ``width`` and ``height``. Defaults to nothing.
    """

    video_id: str
    sentences: list[str]
    ground_truth: list[np.ndarray] = field(default_factory=list)
    tubes: list[np.ndarray] = field(default_factory=list)
    features: dict[str, list[np.ndarray]] = field(default_factory=dict)
    source: dict[str, float] = field(default_factory=dict)

    @property
    def sentence_index(self) -> list[int]:
        """The sentences' places in the file."""
        return list(range(len(self.sentences)))

    def check(self, where: str) -> None:
        """Refuse what has no meaning.

        Raises:
            TubeError: Naming ``where`` (file and video), the tube, and what is wrong with it.
        """
        if '/' in self.video_id or not self.video_id:
            raise TubeError(
                f'{where}: its id must be a name without "/", which HDF5 takes for a folder'
            )
        for index, sentence in enumerate(self.sentences or ['']):
            if not isinstance(sentence, str) or not sentence.strip():
                raise TubeError(
                    f'{where}, sentence {index} is empty; write one or leave the video out'
                )
        if len(self.ground_truth) not in (0, len(self.sentences)):
            raise TubeError(
                f'{where} has {len(self.sentences)} sentences but '
                f'{len(self.ground_truth)} true tubes; they belong together one to one'
            )
        for index, tube in enumerate(self.ground_truth):
            check_tube(tube, f'{where}, true tube of sentence {index}')
        for index, tube in enumerate(self.tubes):
            check_tube(tube, f'{where}, tube {index}')
        for stream, parts in self.features.items():
            self._check_stream(stream, parts, where)

    def _check_stream(self, stream: str, parts: list[np.ndarray], where: str) -> None:
        if len(parts) != len(self.tubes):
            raise TubeError(
                f'{where}, stream {stream!r} has features of {len(parts)} tubes, but '
                f'there are {len(self.tubes)}; extract them from the same tubes'
            )
        for index, part in enumerate(parts):
            shape, size = np.shape(part), np.shape(parts[0])[-1]
            if len(shape) != 2 or 0 in shape or shape[1] != size or not np.isfinite(part).all():
                raise TubeError(
                    f'{where}, tube {index}, stream {stream!r}: features of shape {shape}; '
                    f'expected finite numbers (rows, {size}), with at least one row. Extract them '
                    'again, all with one network'
                )

    def check_video(self, path: str | Path, info: VideoInfo) -> None:
        """Refuse tubes that cannot have been made on a video; warn of tubes that look like it.

        Args:
            path (str | Path): The video, for messages.
            info (VideoInfo): What `probe_video` found in it.

        Raises:
            TubeError: If a box is in a frame after the last one, all boxes of a tube lie outside
                the pictures, or ``source`` says another number, rate or size of pictures.
        """
        count, sides = len(info.times), (info.width, info.height)
        found = dict(fps=info.rate, num_frames=count, width=sides[0], height=sides[1])
        for name, value in self.source.items():
            variable = name == 'fps' and 'variable frame rate' in info.notes
            least = 1 if name == 'num_frames' else 0
            if abs(found[name] - value) > max(least, SOURCE[name] * value) and not variable:
                raise TubeError(
                    f'{path}: its tubes were made on a video of {name} {value:g}, but '
                    f'it has {found[name]:g}; run the tracker on this very file'
                )
        for index, tube in enumerate(self.tubes):
            check_frames(tube, count, f'{path}, tube {index}')
            if not ((tube[:, 3:] >= 0) & (tube[:, 1:3] < sides)).all(1).any():
                raise TubeError(
                    f'{path}, tube {index}: all its boxes lie outside the pictures, which are '
                    f'{sides[0]} x {sides[1]} when upright; run the tracker on this very file'
                )
        last = max((int(tube[-1, 0]) for tube in self.tubes), default=count)
        if last < count // 2 and not self.source.keys() & {'fps', 'num_frames'}:
            print_log(
                f'{path}: its tubes end at frame {last} of {count}; if they were made at '
                'another frame rate, they are taken for others than they are: frames count '
                'the pictures of the file (see docs/tubes.md)',
                'current',
                logging.WARNING,
            )


def check_tube(tube: np.ndarray, where: str) -> None:
    """Refuse an array that is no tube (n, 5).

    Raises:
        TubeError: If the shape is another, there is no box, a number is not finite, a box has a
            negative side, or frames are below 0 or do not rise.
    """
    shape = np.shape(tube)
    if len(shape) != 2 or shape[1] != 5 or not shape[0]:
        raise TubeError(
            f'{where} has shape {shape}; expected (boxes, 5): frame, x1, y1, x2, y2, and at least '
            'one box'
        )
    if not np.isfinite(tube).all():
        raise TubeError(f'{where} holds NaN or infinity')
    bad = np.flatnonzero((tube[:, 3:] < tube[:, 1:3]).any(1))
    if len(bad):
        raise TubeError(
            f'{where}: box {bad[0]} is {tube[bad[0], 1:].tolist()}, which ends before '
            'it begins; expected x1, y1, x2, y2 (not width and height)'
        )
    frames = tube[:, 0]
    if (frames != np.round(frames)).any() or (np.diff(frames, prepend=-1) <= 0).any():
        raise TubeError(
            f'{where}: its frames are not whole numbers that rise from 0 on; sort the boxes and '
            'keep one per frame'
        )


def check_frames(tube: np.ndarray, count: int, where: str) -> None:
    """Refuse a tube (n, 5) that has a box after the last of its video's ``count`` pictures.

    Raises:
        TubeError: Naming the frame.
    """
    if len(tube) and tube[-1, 0] >= count:
        raise TubeError(
            f'{where} has a box in frame {tube[-1, 0]:g}, but the video has {count} '
            f'pictures, 0 to {count - 1}; run the tracker on this very file'
        )


FORMAT, VERSION = 'mmn_plugin/tubes', 1


def write_tube_file(path: str | Path, videos: Iterable[TubeVideo], **attributes) -> int:
    """Write videos into an HDF5 file that appears when it is whole.

    Per video there is a group with ``sentences`` (s,) strings, ``ground_truth`` (rows, 5),
    ``tubes`` (rows, 5) and ``features/<stream>`` (rows, D), all float32. What belongs to several
    tubes lies end to end; the attribute ``lengths`` says how many rows each has. Attributes of the
    group are what is known of the video, see `TubeVideo.source`.

    Args:
        path (str | Path): The file.
        videos (Iterable[TubeVideo]): In any order; checked here.
        **attributes: Of the file, such as how its features were made.

    Returns:
        int: Number of videos.

    Raises:
        TubeError: If a video is not usable, or occurs twice, or there is none.
    """
    with replacing(path) as unfinished:
        with h5py.File(unfinished, 'w', libver='latest') as file:
            file.attrs.update(attributes | dict(format=FORMAT, version=VERSION))
            for video in videos:
                video.check(f'video {video.video_id!r}')
                if video.video_id in file:
                    raise TubeError(f'video {video.video_id!r} occurs twice')
                _write_video(file.create_group(video.video_id), video)
            count = len(file)
        if not count:
            raise TubeError(f'there is no video to write into {path}')
    return count


def _write_video(group: h5py.Group, video: TubeVideo) -> None:
    group.attrs.update(video.source)
    group.create_dataset('sentences', data=video.sentences, dtype=h5py.string_dtype())
    if video.ground_truth:
        _write_parts(group, 'ground_truth', video.ground_truth)
    _write_parts(group, 'tubes', video.tubes)
    for stream, parts in video.features.items():
        _write_parts(group, f'features/{stream}', parts)


def _write_parts(group: h5py.Group, name: str, parts: list[np.ndarray]) -> None:
    lengths = np.array([len(part) for part in parts], np.int64)
    data = np.concatenate(parts) if parts else np.zeros((0, 5))
    group.create_dataset(name, data=data.astype(np.float32)).attrs['lengths'] = lengths


class TubeFile(HDF5File):
    """Videos of an HDF5 file that `write_tube_file` wrote.

    A file that is replaced, written to or removed while it is in use is an error.

    Args:
        path (str | Path): The file.

    Raises:
        FileNotFoundError: If it does not exist; the message lists what is beside it.
        TubeError: If it is not a tube file.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        if not path.is_file():
            raise MissingFileError(
                f'tube file {path} does not exist; correct data_root or ann_file in the config, or '
                f'make it as tools/data/hcstvg/README.md describes. {describe_folder(path)}'
            )
        super().__init__(path)
        try:
            found = dict(self.file().attrs)
        except OSError as error:
            raise TubeError(
                f'{path} cannot be read as HDF5 ({error}): it is damaged, incomplete, or one of '
                'the published files. Convert it with tools/data/hcstvg/convert.py'
            ) from error
        if (found.get('format'), found.get('version')) != (FORMAT, VERSION):
            raise TubeError(
                f'{path} is not a tube file of version {VERSION}; make it with '
                'tools/data/hcstvg/convert.py or tools/data/make_shapes_tubes.py'
            )

    def video_ids(self) -> list[str]:
        """Ids of all videos, sorted."""
        return sorted(self.file())

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
        """Size D of each stream, from the file's metadata; a `TubeError` if the video lacks one."""
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
        self._require_same(version)
        try:
            video = self._read(video_id, streams)
        except (OSError, KeyError, RuntimeError) as error:
            raise TubeError(
                f'{self.path}: cannot read video {video_id!r} ({error}); the file is '
                'damaged. Convert it again'
            ) from error
        finally:  # what a file that is being written to gives may look damaged
            self._require_same(version)
        video.check(f'{self.path}: video {video_id!r}')
        return video

    def _require_same(self, version: Sequence[int] | None) -> None:
        if message := self.change(version):
            raise TubeError(message)

    def _read(self, video_id: str, streams: Sequence[str]) -> TubeVideo:
        group = self._group(video_id)
        tubes = _parts(group['tubes'])
        return TubeVideo(
            video_id,
            self.sentences(video_id),
            _parts(group['ground_truth']) if 'ground_truth' in group else [],
            tubes,
            # a video without tubes need not have streams
            {name: _parts(self._stream(video_id, name)) if tubes else [] for name in streams},
            {name: float(group.attrs[name]) for name in SOURCE if name in group.attrs},
        )

    def _group(self, video_id: str) -> h5py.Group:
        found = self.file().get(video_id)
        if not isinstance(found, h5py.Group) or not {'sentences', 'tubes'} <= set(found):
            raise TubeError(
                f'{self.path}: video {video_id!r} is not there, or lacks sentences or tubes; the '
                'file is damaged. Convert it again'
            )
        return found

    def _stream(self, video_id: str, stream: str) -> h5py.Dataset:
        features = self._group(video_id).get('features', {})
        if stream not in features:
            raise TubeError(
                f'{self.path}: video {video_id!r} has no stream {stream!r}, but '
                f'{sorted(features)}; correct `streams` in the config, or convert the file with it'
            )
        return features[stream]


def _parts(dataset: h5py.Dataset) -> list[np.ndarray]:
    """What lies end to end, apart."""
    lengths = dataset.attrs['lengths']
    return np.split(dataset[()], np.cumsum(lengths)[:-1]) if len(lengths) else []
