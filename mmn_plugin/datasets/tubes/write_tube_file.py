"""Writing a tube file."""

import os
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from .tube_error import TubeError
from .tube_video import TubeVideo

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
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + '.part')
    try:
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
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
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
