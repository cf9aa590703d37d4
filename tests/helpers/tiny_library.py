"""Small libraries of random moments."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mmn_plugin.library import FolderStore, StoredVideo
from mmn_plugin.structures import VideoEmbedding

WIDTHS = {'contrastive': 20, 'iou': 24}


def video(video_id='a', moments=6, widths=WIDTHS, seed=None, trust=False, **changes) -> StoredVideo:
    """A video of random moments, the same ones for the same id and seed."""
    draw = torch.Generator().manual_seed(sum(map(ord, video_id)) if seed is None else seed)
    starts = torch.rand(moments, generator=draw) * 20
    embedding = VideoEmbedding(
        {s: torch.randn(moments, width, generator=draw) for s, width in widths.items()},
        torch.stack((starts, starts + 4), 1),
        video_id,
        40.0,
        torch.rand(moments, generator=draw) if trust else None,
    )
    fields = dict(
        path=f'/videos/{video_id}.mp4',
        folder='kitchen',
        duration=40.0,
        modified=1.75e9,
        meta={},
        embedding=embedding,
    )
    return StoredVideo(video_id=video_id, **{**fields, **changes})


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder that goes afterwards, in memory where the system has a place for it."""
    place = '/dev/shm' if os.access('/dev/shm', os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


def library(folder, *videos, dtype='float16') -> FolderStore:
    """A new library, with one segment for each video."""
    store = FolderStore.create(folder, dtype)
    for each in videos:
        store.add([each])
    return store


def content(store) -> dict:
    """What is stored of each video: its columns, and all its moments in the models' coordinates."""
    snapshot, found = store.snapshot(), {}
    for segment, owners in zip(snapshot.segments, snapshot.video_of_row, strict=True):
        for number in set(owners.tolist()) - {-1}:
            rows, row = (owners == number).nonzero()[0], snapshot.videos[number]
            found[row.video_id] = (
                (row.path, row.folder, row.duration, row.modified, row.meta),
                {
                    'spans': segment.spans[rows],
                    'lengths': segment.lengths[rows],
                    'trust': None if segment.trust is None else segment.trust[rows],
                    **{s: segment.vectors(s, rows) @ segment.rotation[s] for s in segment.spaces},
                },
            )
    empty = (row for row in snapshot.videos.values() if not row.moments)
    return found | {row.video_id: (tuple(row[2:6]), None) for row in empty}
