"""HDF5 files of extracted features, each video with its fingerprint."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from mmn_plugin.errors import InputError
from mmn_plugin.files import replacing, write_json

from .video_stream import VideoReadError


class FeatureFileError(InputError):
    """A feature file cannot be continued; the message says why and what to do."""


COMPARED = ('feature_size', 'stride', 'fps')
PIECE = 1 << 20  # bytes of a video that are hashed at its beginning, in its middle, and at its end


def video_mark(path: Path) -> dict | None:
    """What a video is known by: ``size`` (bytes), ``mtime`` (ns), ``sha256`` of parts of it.

    None where the file cannot be read.
    """
    try:
        with open(path, 'rb') as file:
            status, digest = os.fstat(file.fileno()), hashlib.sha256()
            for begin in sorted(
                {0, max(0, status.st_size // 2 - PIECE // 2), max(0, status.st_size - PIECE)}
            ):
                file.seek(begin)
                digest.update(file.read(PIECE))
    except OSError:
        return None
    return dict(size=status.st_size, mtime=status.st_mtime_ns, sha256=digest.hexdigest())


def is_replaced(mark: dict, path: Path) -> bool:
    """Whether a video is another one than its mark says; one that is gone is not.

    Its content is looked at only where the size is the same and the time is not, as after copying.
    """
    try:
        status = path.stat()
    except OSError:
        return False
    if status.st_size == mark['size'] and status.st_mtime_ns == mark['mtime']:
        return False
    found = video_mark(path)
    return found is not None and any(found[key] != mark[key] for key in ('size', 'sha256'))


def read_fingerprint(path: str | Path, feature_key: str | None = None) -> dict | None:
    """The fingerprint in the attributes of a file of features; None where it does not tell.

    Args:
        path (str | Path): HDF5 file, or anything else that holds features.
        feature_key (str, optional): Name of the features in a video's entry. Defaults to None.
    """
    if not Path(path).is_file() or not h5py.is_hdf5(path):
        return None
    with h5py.File(path) as file:
        entry = next(iter(file.values()), None)
        if feature_key is not None and isinstance(entry, h5py.Group):
            entry = entry.get(feature_key)
        return entry_fingerprint(entry, file.attrs)


def entry_fingerprint(entry: h5py.Dataset, attributes: Mapping | None = None) -> dict | None:
    """The fingerprint of one video's features in its attributes, or others; None: there is none."""
    attributes = entry.attrs if attributes is None else attributes
    told = {'extractor', 'stride', 'fps'} <= attributes.keys()
    if not told or len(getattr(entry, 'shape', ())) != 2:
        return None
    found = dict(
        extractor=str(attributes['extractor']),
        stride=int(attributes['stride']),
        fps=float(attributes['fps']),
        feature_size=int(entry.shape[1]),
    )
    if 'config' in attributes:
        found['config'] = json.loads(attributes['config'])
    return found


def differences(theirs: dict, ours: dict) -> list[str]:
    """What two fingerprints differ in, as text; empty if they belong together."""
    found = [
        f'{key} {theirs.get(key)}, here {ours.get(key)}'
        for key in COMPARED
        if theirs.get(key) != ours.get(key)
    ]
    old, new = (flat_settings(one.get('extractor')) for one in (theirs, ours))
    # of two kinds of extractors or models only what both have can be compared
    alike = all(old.get(key) == new.get(key) for key in ('extractor', 'architecture'))
    keys = old.keys() | new.keys() if alike else old.keys() & new.keys()
    return found + [
        f'{key} {old.get(key)}, here {new.get(key)}'
        for key in sorted(keys)
        if old.get(key) != new.get(key)
    ]


def flat_settings(identity: str | None) -> dict:
    """Settings in an extractor's identity by dotted names, and its type (or the whole, where it is
    no JSON) as ``extractor``.
    """
    try:
        content = json.loads(identity)
        found = dict(extractor=content.pop('type', None))
        parts = list(content.items())
    except (ValueError, TypeError, AttributeError):
        return dict(extractor=identity)
    for name, value in parts:  # which grows
        if isinstance(value, dict):
            parts += ((f'{name}.{key}', entry) for key, entry in value.items())
        else:
            found[name] = value
    return found


def maker(fingerprint: dict) -> str:
    """What made features, in few words: kind of extractor and, where it is known, of model."""
    settings = flat_settings(fingerprint.get('extractor'))
    model = (fingerprint.get('config') or {}).get('model') or settings.get('architecture')
    return f'{settings["extractor"]} {model or ""}'.strip()


def require_same_extractor(
    theirs: Sequence[dict | None] | None,
    ours: Sequence[dict | None],
    their_name: str,
    our_names: Sequence[str],
    remedy: str = 'Use the extractor of the training, or train on these features',
) -> list[str]:
    """Refuse features of another extractor than a model was trained on.

    Args:
        theirs (Sequence[dict | None] | None): Fingerprints of the training's feature files, in
            their order; None where nothing is known.
        ours (Sequence[dict | None]): Those of the files or the extractor to be used.
        their_name (str): The checkpoint (or file) for the message.
        our_names (Sequence[str]): The files, or the extractor, likewise.
        remedy (str): What to do, for the message.

    Returns:
        list[str]: Names of ours that do not tell what made them although theirs are known.

    Raises:
        ValueError: If they do not belong together; it names both, and what differs.
    """
    if not theirs or not any(theirs):
        return []
    if len(theirs) != len(ours):
        raise InputError(
            f'{their_name} was made with {len(theirs)} feature files joined, here there are '
            f'{len(ours)} ({", ".join(our_names)}). Give as many, in the same order'
        )
    untold = []
    for their, our, name in zip(theirs, ours, our_names, strict=True):
        if their and not our:
            untold.append(name)
        elif their and (differing := differences(their, our)):
            one, other = maker(their), maker(our)
            makers = f'both {one}' if one == other else f'{one} and {other}'
            raise InputError(
                f'{their_name} and {name} do not belong together, their features come from '
                f'different extractors ({makers}): {"; ".join(differing)}. {remedy}'
            )
    return untold


class RowWriter:
    """Writes a video's features part by part, which are never all in memory.

    Args:
        path (Path): Where the rows go.
        video_id (str): The video.
        mark (dict | None): Its mark (see `video_mark`).
        end (Callable[[dict], None]): Keeps a note that they are complete.
    """

    def __init__(
        self, path: Path, video_id: str, mark: dict | None, end: Callable[[dict], None]
    ) -> None:
        self._part, self._end = dict(id=video_id, mark=mark), end
        self._rows = self._size = 0
        self._file = open(path, 'wb')  # noqa: SIM115  (open until all rows have come)

    def close(self) -> None:
        """Write no more; without :meth:`end` the rows are not taken for complete."""
        self._file.close()

    def write(self, block: np.ndarray) -> None:
        """Write the next rows (n, D) float32; NaN or infinity raises a `VideoReadError`."""
        if not np.isfinite(block).all():
            raise VideoReadError(f'{self._part["id"]}: its features hold NaN or infinity')
        self._file.write(np.ascontiguousarray(block, np.float32).data)
        self._rows, self._size = self._rows + len(block), block.shape[1]

    def end(self, notes: dict[str, str] | None = None) -> None:
        """Say that the rows are complete, with notes; that there are none raises as above."""
        self.close()
        if not self._rows:
            raise VideoReadError(f'{self._part["id"]}: gave no features')
        self._end(dict(self._part, shape=(self._rows, self._size), notes=notes or {}))


class FeatureFile:
    """Collects features video by video and survives being killed at any moment.

    Finished videos first lie one by one in ``<name>.parts/``, where several processes may put them:
    the rows, and then a note that they are complete. :meth:`merge` writes them, with what the file
    already holds, into a new file and moves it to its place in one step. So the file is either
    absent or whole, and after a kill nothing that was finished is done again. A video's features
    are never in memory at once. Parts are named by digests, so that any id and file system will do.

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
                found = {key: np.array(file.attrs.get(key)).item() for key in self.settings}
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
                f'{where} holds features made with other settings: '
                f'{"; ".join(differences(found, self.settings))}; delete it or name another file'
            )

    def marks(self, videos: set[str]) -> dict[str, dict | None]:
        """Marks of the videos, of some, that have features; None where these do not tell."""
        found, inside = {}, videos & self._in_file
        if inside:
            with h5py.File(self.path) as file:
                for video in inside:
                    found[video] = json.loads(file[video].attrs.get('video', 'null'))
        parts = (part for part in self._ended() if 'mark' in part and part['id'] in videos)
        return found | {part['id']: part['mark'] for part in parts}

    def open_parts(self, again: Iterable[str] = ()) -> None:
        """Make the folder that :meth:`writer` writes to, and forget what an earlier run began.

        The finished parts of some videos are forgotten too: they are done ``again``.
        """
        self.parts.mkdir(parents=True, exist_ok=True)
        for path in self.parts.glob('*.claim'):
            path.unlink()
        for video_id in (*self.failures(), *again):
            self._part(video_id, 'video').unlink(missing_ok=True)
        write_json(self.settings, self.parts / 'settings.json')

    def claim(self, video_id: str) -> bool:
        """Whether the calling process is the first of all to ask for this video."""
        try:
            self._part(video_id, 'claim').touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def writer(self, video_id: str, mark: dict | None = None) -> RowWriter:
        """What keeps a video's features, part by part; may be called from several processes.

        Args:
            video_id (str): Name of the dataset.
            mark (dict, optional): Of the video. Defaults to None.

        Returns:
            RowWriter: Whoever asked closes it; nothing counts before its ``end()``.

        Raises:
            VideoReadError: From its ``write`` and ``end``, of NaN or of no row at all.
        """
        return RowWriter(self._part(video_id, 'rows'), video_id, mark, self._end)

    def fail(self, video_id: str, message: str) -> None:
        """Keep why a video has no features; :meth:`merge` removes those of an earlier video."""
        self._end(dict(id=video_id, message=message))

    def failures(self) -> dict[str, str]:
        """Video id -> message, of this run and all its processes."""
        return {part['id']: part['message'] for part in self._ended() if 'message' in part}

    def notes(self) -> dict[str, dict[str, str]]:
        """Video id -> notes, of the videos that the next :meth:`merge` will move."""
        return {part['id']: part['notes'] for part in self._ended() if part.get('notes')}

    def count(self) -> int:
        """How many videos have come to an end in the parts' folder."""
        return sum(name.endswith('.video') for name in os.listdir(self.parts))

    def _part(self, video_id: str, kind: str) -> Path:
        return self.parts / f'{hashlib.sha256(video_id.encode()).hexdigest()[:32]}.{kind}'

    def _end(self, part: dict) -> None:
        write_json(part, self._part(part['id'], 'video'))

    def _ended(self) -> list[dict]:
        """What :meth:`writer` and :meth:`fail` ended with for each video, by id."""
        parts = [json.loads(path.read_text()) for path in self.parts.glob('*.video')]
        return sorted(parts, key=lambda part: part['id'])

    def merge(self) -> None:
        """Move what :meth:`writer` kept into the file and remove the parts."""
        if not self.parts.is_dir():
            return
        with replacing(self.path) as unfinished:
            if self.path.exists():
                shutil.copyfile(self.path, unfinished)
            with h5py.File(unfinished, 'a' if self.path.exists() else 'w') as file:
                file.attrs.update(self.attributes)
                for part in self._ended():
                    if part['id'] in file:
                        del file[part['id']]  # of a video that another one has replaced
                    if 'shape' in part:
                        self._copy(part, file)
                self._in_file = set(file)
        shutil.rmtree(self.parts)

    def _copy(self, part: dict, file: h5py.File) -> None:
        path = self._part(part['id'], 'rows')
        rows = np.memmap(path, np.float32, 'r', shape=tuple(part['shape']))  # never all in memory
        dataset = file.create_dataset(part['id'], data=rows)
        dataset.attrs.update(self.attributes)
        if part['mark'] is not None:
            dataset.attrs['video'] = json.dumps(part['mark'])


def name_problem(video_id: str) -> str | None:
    """Why a video cannot be stored under its name, or None."""
    try:
        video_id.encode()
    except UnicodeEncodeError:
        return 'holds bytes that are no UTF-8'
    # "." stands for the file itself, and what a slash would divide are groups
    return 'cannot be that of an entry' if video_id in ('', '.') or '/' in video_id else None


ZERO = 'features are all zero'
CONSTANT = 'features never change: all rows are the same'
ZERO_ROWS = 'rows of zeros in features'
SAME_ROWS = 'most rows of the features are the same'


def lack_of_content(features: np.ndarray) -> str | None:
    """What makes a video's features tell nothing, or little, of when something happens.

    Args:
        features (np.ndarray): (T, D), finite.

    Returns:
        str | None: `ZERO`, `CONSTANT`, `ZERO_ROWS`, `SAME_ROWS` (of more than half of the video),
        or None. A single row is only looked at for zeros.
    """
    largest = np.abs(features).max(axis=1)  # (T,)
    if not largest.any():
        return ZERO
    # the row that more than half of all rows are, if there is one
    usual = np.median(features, axis=0)  # (D,)
    same = np.abs(features - usual).max(axis=1) <= 1e-6 * largest.max()  # (T,)
    if len(features) > 1 and same.all():
        return CONSTANT
    if not largest.all():
        return ZERO_ROWS
    return SAME_ROWS if 2 * same.sum() > max(len(features), 2) else None
