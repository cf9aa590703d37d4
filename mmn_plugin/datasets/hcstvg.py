"""HC-STVG: annotations, pickled features and tracks."""

import pickle
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmn_plugin.errors import MissingFileError
from mmn_plugin.files import read_json
from mmn_plugin.safe_pickle import RestrictedUnpickler

from .tube_file import SOURCE, TubeError, TubeFile, TubeVideo, check_tube


def read_hcstvg_annotations(path: str | Path) -> dict[str, tuple[str, np.ndarray | None]]:
    """Read sentences and true tubes.

    A video maps to ``English`` (or ``caption``) and, where the truth is published, ``st_frame``,
    ``ed_frame`` and ``bbox``: a list of x, y, w, h for each frame from ``st_frame`` on. Boxes
    become x1, y1, x2 = x + w, y2 = y + h. A null in the list is a frame without a box.

    Args:
        path (str | Path): JSON file.

    Returns:
        dict[str, tuple[str, np.ndarray | None]]: video -> sentence and tube (n, 5) float32, or
        None where the file has no truth.

    Raises:
        FileNotFoundError: If the file does not exist.
        TubeError: If it is not in this format; the message names the video.
    """
    path = Path(path)
    content = read_json(path, f'annotation file {path} does not exist', TubeError)
    if not isinstance(content, dict) or not content:
        raise TubeError(
            f'{path} holds no videos; expected a JSON object {{video: {{"st_frame": '
            '..., "ed_frame": ..., "bbox": ..., "English": ...}}'
        )
    return {video: _parse(entry, f'{path}: video {video!r}') for video, entry in content.items()}


def _parse(entry: dict, where: str) -> tuple[str, np.ndarray | None]:
    if not isinstance(entry, dict):
        raise TubeError(f'{where} is {entry!r}, not an object')
    sentence = entry.get('English', entry.get('caption'))
    if not isinstance(sentence, str) or not sentence.strip():
        raise TubeError(f'{where} has no sentence under "English"')
    if 'bbox' not in entry:
        return sentence, None
    try:
        start, end = int(entry['st_frame']), int(entry['ed_frame'])
        boxes = entry['bbox']
        rows = [(start + i, *map(float, box)) for i, box in enumerate(boxes) if box is not None]
        tube = np.array(rows, np.float64).reshape(-1, 5)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise TubeError(
            f'{where}: expected "st_frame", "ed_frame" and "bbox", a list of [x, y, w, '
            f'h] ({type(error).__name__}: {error})'
        ) from error
    if len(boxes) not in (end - start, end - start + 1):  # files differ in whether ed_frame is in
        raise TubeError(f'{where} has {len(boxes)} boxes for the frames {start} to {end}')
    tube[:, 3:] += tube[:, 1:3]
    check_tube(tube, f'{where}, its bbox')
    return sentence, tube.astype(np.float32)


def load_pickle(path: str | Path, trust: bool = False):
    """Open a pickle.

    With ``trust`` the file may create objects of any class, which is to let it run any code with
    your rights; without, it may hold arrays of numbers or strings, and plain containers, alone.

    Raises:
        FileNotFoundError: If the file does not exist.
        TubeError: If the file is no pickle, or holds what it may not; the message names the class.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f'{path} does not exist')
    try:
        with open(path, 'rb') as file:
            if trust:
                return pickle.load(file, encoding='latin1')
            return RestrictedUnpickler(file).load()
    except Exception as error:  # a damaged file fails in many ways
        if str(error).startswith('it asks for') and isinstance(error, pickle.UnpicklingError):
            raise TubeError(
                f'{path} holds more than arrays and plain containers: {error}. Opening that runs '
                'code of the file; if you trust where it comes from, give --trust-pickle'
            ) from error
        raise TubeError(
            f'{path} is not a pickle, or it is damaged ({type(error).__name__}: {error})'
        ) from error


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
    video = file.read(name, streams if set(streams) <= file.streams(name) else ())
    file.close()
    return TubeVideo(name, [], [], video.tubes, video.features, video.source)


def _name_in(names: Collection[str], video_id: str, path: Path) -> str:
    found = next((name for name in (video_id, Path(video_id).stem) if name in names), None)
    if found is None:
        there = ', '.join(sorted(names)[:3]) or 'none'
        raise TubeError(f'{path} has no video {video_id!r}; it has {there}')
    return found


def _track(rows, where: str) -> np.ndarray:
    try:
        track = np.array(sorted([float(value) for value in row[:5]] for row in rows), np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise TubeError(f'{where} is not a list of [frame, x1, y1, x2, y2]: {error}') from error
    check_tube(track, where)
    return track


def gather_videos(
    annotations: Mapping[str, tuple],
    tubes: Mapping[str, Any],
    streams: Mapping[str, Mapping[str, Any]],
) -> Iterator[TubeVideo]:
    """Put annotations, tubes and features together, video by video.

    Args:
        annotations (Mapping[str, tuple]): As of `read_hcstvg_annotations`.
        tubes (Mapping[str, Any]): video -> tubes: a list, or a mapping from names, of (n, 5) frame,
            x1, y1, x2, y2. A video that is absent has none. Boxes are sorted by frame.
        streams (Mapping[str, Mapping[str, Any]]): Name of a stream -> video -> features in the
            order (or under the names) of the tubes, each (rows, D).

    Raises:
        TubeError: If something does not fit together; the message names video and stream.
    """
    for name, content in dict(tubes=tubes, **streams).items():
        if not isinstance(content, Mapping):
            raise TubeError(
                f'{name}: expected a mapping from videos, found {type(content).__name__}'
            )
    for video_id, (sentence, truth) in annotations.items():
        given = _of_video(tubes, video_id)
        found, features = _named(given), {}
        for stream, content in streams.items() if found else ():
            parts = _named(_of_video(content, video_id))
            too_many = not isinstance(given, Mapping) and len(parts) > len(found)
            if too_many or not found.keys() <= parts.keys():
                raise TubeError(
                    f'video {video_id!r}: stream {stream!r} has features of the tubes '
                    f'{list(parts)[:5]}, but there are {list(found)[:5]}, {len(found)} in all; '
                    'take both from one run'
                )
            features[stream] = [np.asarray(parts[name], dtype=np.float32) for name in found]
        yield TubeVideo(
            video_id,
            [sentence],
            [] if truth is None else [truth],
            [_sorted_boxes(tube) for tube in found.values()],
            features,
        )


def _of_video(content: Mapping, video_id: str):
    """A video's entry, under its id with or without the suffix of a video file."""
    keys = (video_id, Path(video_id).stem, f'{video_id}.mkv', f'{video_id}.mp4')
    return next((content[key] for key in keys if key in content), [])


def _named(parts) -> Mapping:
    """The parts of a video by their names, or by their places in a list."""
    return parts if isinstance(parts, Mapping) else dict(enumerate(parts))


def _sorted_boxes(tube) -> np.ndarray:
    tube = np.asarray(tube, dtype=np.float32)
    return tube[np.argsort(tube[:, 0], kind='stable')] if tube.ndim == 2 else tube
