"""What a detector with a tracker found, from a file."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from mmn_plugin.structures.read_json import read_json

from .tube_error import TubeError
from .tube_file import TubeFile
from .tube_video import SOURCE, TubeVideo, check_tube


def read_tracks(path: str | Path, video_id: str, streams: Sequence[str] = ()) -> TubeVideo:
    """Candidate tubes of a video, from any detector and tracker.

    Two formats are read. JSON: ``{"<video>": [track, ...]}``, a track being a list of
    [frame, x1, y1, x2, y2] in any order; frame counts the video's pictures from 0, boxes are in
    pixels of an upright picture, both edges included. Numbers after the fifth (a detector's score)
    are left alone. Instead of the list there may be an object of it, ``tracks``, and what the
    tracker saw: ``fps``, ``num_frames``, ``width``, ``height``, all optional, which are compared
    with the video when it is asked about. HDF5: a tube file, see `write_tube_file`, which may hold
    features of the tubes as well.

    Args:
        path (str | Path): ``.json`` file, or a tube file.
        video_id (str): Name of the video's file, with its suffix; the track file may leave
            the suffix out.
        streams (Sequence[str]): Names of the streams to read where a tube file has them all;
            else the result has no features. Defaults to none.

    Returns:
        TubeVideo: Its tubes, frames rising, without a sentence.

    Raises:
        FileNotFoundError: If the file does not exist.
        TubeError: If it is in neither format, or lacks the video.
    """
    path = Path(path)
    if path.suffix != '.json':
        return _read_tube_file(TubeFile(path), video_id, streams)
    content = read_json(path, f'track file {path} does not exist', TubeError)
    if not isinstance(content, dict):
        raise TubeError(f'{path} is not a JSON object {{video: [track, ...]}}')
    name = _name_in(content, video_id, path)
    where, tracks, source = f'{path}: video {name!r}', content[name], {}
    if isinstance(tracks, dict):
        source = {key: value for key, value in tracks.items() if key != 'tracks'}
        tracks = tracks.get('tracks')
    if not isinstance(tracks, list) or not all(
        key in SOURCE and isinstance(value, int | float) and 0 < value < np.inf
        for key, value in source.items()
    ):
        raise TubeError(
            f'{where} is neither a list of tracks nor {{"tracks": [...]}} with a '
            f'positive number under some of {", ".join(SOURCE)}'
        )
    tubes = [_track(rows, f'{where}, track {i}') for i, rows in enumerate(tracks)]
    return TubeVideo(name, [], [], tubes, source=source)


def _read_tube_file(file: TubeFile, video_id: str, streams: Sequence[str]) -> TubeVideo:
    name = _name_in(file.video_ids(), video_id, file.path)
    known = file.streams(name)
    video = file.read(name, [s for s in streams if set(streams) <= known])
    file.close()
    return TubeVideo(name, [], [], video.tubes, video.features, video.source)


def _name_in(names: Collection[str], video_id: str, path: Path) -> str:
    for name in (video_id, Path(video_id).stem):
        if name in names:
            return name
    raise TubeError(
        f'{path} has no video {video_id!r}; it has {", ".join(sorted(names)[:3]) or "none"}'
    )


def _track(rows, where: str) -> np.ndarray:
    try:
        track = np.array(sorted([float(value) for value in row[:5]] for row in rows), np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise TubeError(f'{where} is not a list of [frame, x1, y1, x2, y2]: {error}') from error
    check_tube(track, where)
    return track
