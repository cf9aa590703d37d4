"""Which extractor made features: what a checkpoint keeps and compares.

A fingerprint is a dict with ``extractor`` (the identity, see `FeatureExtractor`), ``stride``
(frames per row), ``fps`` (frames per second looked at), ``feature_size`` and, where it is known,
``config`` (what the extractor can be built from, which is not compared).

The mark of a video tells whether another one has taken its name since its features were made.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import h5py

COMPARED = ('feature_size', 'stride', 'fps', 'extractor')
PIECE = 1 << 20  # bytes of a video that are hashed at its beginning, in its middle, and at its end


def video_mark(path: Path) -> dict | None:
    """What a video is known by: ``size`` (bytes), ``mtime`` (ns), ``sha256`` of parts of it.

    Returns:
        dict | None: None where the file cannot be read.
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
    """The fingerprint in the attributes of a feature file.

    Args:
        path (str | Path): HDF5 file, or anything else that holds features.
        feature_key (str, optional): Name of the features in a video's entry. Defaults to None.

    Returns:
        dict | None: None where the file does not tell.
    """
    if not Path(path).is_file() or not h5py.is_hdf5(path):
        return None
    with h5py.File(path) as file:
        attributes = dict(file.attrs)
        entry = next(iter(file.values()), None)
        if feature_key is not None and isinstance(entry, h5py.Group):
            entry = entry.get(feature_key)
        return _fingerprint(attributes, entry)


def entry_fingerprint(entry: h5py.Dataset) -> dict | None:
    """The fingerprint in the attributes of one video's features; None where they do not tell."""
    return _fingerprint(dict(entry.attrs), entry)


def _fingerprint(attributes: dict, entry) -> dict | None:
    if (
        not {'extractor', 'stride', 'fps'} <= attributes.keys()
        or len(getattr(entry, 'shape', ())) != 2
    ):
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
        for key in COMPARED[:-1]
        if theirs.get(key) != ours.get(key)
    ]
    if theirs.get('extractor') != ours.get('extractor'):
        found += _extractors(str(theirs.get('extractor')), str(ours.get('extractor')))
    return found


def _extractors(theirs: str, ours: str) -> list[str]:
    """The settings that differ, where both are of one kind."""
    try:
        one, other = json.loads(theirs), json.loads(ours)
        alike = one['type'] == other['type']
    except (ValueError, TypeError, KeyError):
        alike = False
    if not alike:
        return [f'extractor {theirs}, here {ours}']
    return [
        f'{key} {one.get(key)}, here {other.get(key)}'
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    ]


def require_same_extractor(
    theirs: Sequence[dict | None] | None,
    ours: Sequence[dict | None],
    their_name: str,
    our_names: Sequence[str],
) -> list[str]:
    """Refuse features of another extractor than a model was trained on.

    Args:
        theirs (Sequence[dict | None] | None): Fingerprints of the training's feature files, in
            their order; None where nothing is known.
        ours (Sequence[dict | None]): Those of the files or the extractor to be used.
        their_name (str): The checkpoint (or file) for the message.
        our_names (Sequence[str]): The files, or the extractor, for the message.

    Returns:
        list[str]: Names of ours that do not tell what made them although theirs are known.

    Raises:
        ValueError: If they do not belong together; it names both, and what differs.
    """
    if not theirs or not any(theirs):
        return []
    if len(theirs) != len(ours):
        raise ValueError(
            f'{their_name} was made with {len(theirs)} feature files joined, here '
            f'there are {len(ours)} ({", ".join(our_names)}). Give as many, in the '
            'same order'
        )
    for their, our, name in zip(theirs, ours, our_names, strict=True):
        differing = differences(their, our) if their and our else []
        if differing:
            raise ValueError(
                f'{their_name} and {name} do not belong together, their features come from '
                f'different extractors: {"; ".join(differing)}. Use the extractor of the training, '
                'or train on these features'
            )
    return [
        name for their, our, name in zip(theirs, ours, our_names, strict=True) if their and not our
    ]
