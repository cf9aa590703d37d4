"""All moments of a library in one HDF5 file, for other stores and programs."""

import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from mmn_plugin.files import replacing

from .moment_store import Snapshot

ROWS = 65_536  # that are in memory at once


def export_moments(snapshot: Snapshot, path: str | Path, **attributes) -> None:
    """Write a library's moments.

    The file has ``video_ids``, ``paths`` and ``durations`` of V videos; and of M moments ``video``
    (M,) the place of its video, ``spans`` (M, 2) in seconds, ``lengths`` (M,) as shares of what
    was looked at at once, ``trust`` (M,), and ``embeddings/SPACE`` (M, J) float32, as they were
    before they were rotated and rounded.

    Args:
        snapshot (Snapshot): The library.
        path (str | Path): The file; it appears when it is complete.
        **attributes: Plain data, which become attributes of the file as JSON.
    """
    rows = list(snapshot.videos.values())
    places = {row.number: place for place, row in enumerate(rows)}
    with replacing(path) as unfinished, h5py.File(unfinished, 'w') as file:
        for name, value in attributes.items():
            file.attrs[name] = json.dumps(value)
        text = h5py.string_dtype()
        file.create_dataset('video_ids', data=[row.video_id for row in rows], dtype=text)
        file.create_dataset('paths', data=[row.path for row in rows], dtype=text)
        file['durations'] = np.array([row.duration for row in rows])
        begin = 0
        for videos, columns in _blocks(snapshot):
            columns['video'] = np.array([places[number] for number in videos], np.int32)
            for name, values in columns.items():
                if name not in file:
                    file.create_dataset(name, (snapshot.moments, *values.shape[1:]), values.dtype)
                file[name][begin : begin + len(videos)] = values
            begin += len(videos)


def _blocks(snapshot: Snapshot) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    """Numbers of the videos of some moments, and their columns, vectors without rotation."""
    for segment, owners in zip(snapshot.segments, snapshot.video_of_row, strict=True):
        kept = np.flatnonzero(owners >= 0)
        for start in range(0, len(kept), ROWS):
            rows = kept[start : start + ROWS]
            trust = np.ones(len(rows), np.float32)
            columns = dict(
                spans=segment.spans[rows],
                lengths=segment.lengths[rows],
                trust=trust if segment.trust is None else segment.trust[rows],
            )
            for space in segment.spaces:
                columns[f'embeddings/{space}'] = segment.unrotated(space, rows)
            yield owners[rows].tolist(), columns
