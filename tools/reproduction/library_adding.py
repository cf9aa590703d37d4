"""Videos added to a library of a million moments while another process's connection searches it."""

import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

import torch

from mmn_plugin.library import ExactSearch, Segment
from mmn_plugin.library.moment_store import StoredVideo
from mmn_plugin.library.store import FolderStore
from mmn_plugin.structures import VideoEmbedding

from .library_speed import TOP_N, at, large_captions
from .running import ROOT, WORK
from .tables import table

VIDEOS, MOMENTS = 20, 500
AT_ONCE = 100_000  # moments that the library is filled by


def library_adding() -> dict:
    """Milliseconds of adding a video, of the searches beside it, and of the first one after it."""
    segment, sentences, score = large_captions()
    with tempfile.TemporaryDirectory(dir=ROOT / WORK) as scratch:
        path = Path(scratch) / 'library'
        store = FolderStore.create(path)
        for start in range(0, segment.rows, AT_ONCE):
            store.add([video_of(segment, start, min(start + AT_ONCE, segment.rows))])
        store.compact()
        found = measured(store, FolderStore(path, readonly=True), segment, score, sentences)
    return dict(moments=segment.rows, load=os.getloadavg()[0], **found)


def video_of(segment: Segment, start: int, end: int, name: str = '') -> StoredVideo:
    """Moments of a segment, turned back, as a video."""
    embeddings = {
        space: torch.from_numpy(segment.vectors(space, slice(start, end)) @ segment.rotation[space])
        for space in segment.spaces
    }
    spans = torch.tensor([0.0, 1.0]).repeat(end - start, 1)
    video_id = name or f'moments from {start}'
    embedding = VideoEmbedding(embeddings, spans, video_id, 1.0)
    return StoredVideo(video_id, video_id, '', 1.0, None, {}, embedding)


def add(store: FolderStore, segment: Segment, name: str) -> float:
    """Milliseconds until a video is in the library."""
    video = video_of(segment, 0, MOMENTS, name)
    began = time.perf_counter()
    store.add([video])
    return 1000 * (time.perf_counter() - began)


def measured(store, reading, segment: Segment, score, sentences: dict) -> dict:
    """Searches alone, then adding and searching at the same time."""
    search = ExactSearch(reading.snapshot().segments, score)

    def searched(place: int) -> float:
        began = time.perf_counter()
        search(at(sentences, place % len(sentences[score.spaces[0]])), TOP_N)
        return 1000 * (time.perf_counter() - began)

    searched(0)
    alone = [searched(place) for place in range(VIDEOS)]
    added, beside, ended = [], [], threading.Event()

    def search_on() -> None:
        while not ended.is_set():
            beside.append(searched(len(beside)))

    quiet = [add(store, segment, f'quiet {number}') for number in range(VIDEOS)]
    reader = threading.Thread(target=search_on)
    reader.start()
    for number in range(VIDEOS):
        added.append(add(store, segment, f'beside {number}'))
    ended.set()
    reader.join()
    began = time.perf_counter()
    snapshot = reading.snapshot()
    search = ExactSearch(snapshot.segments, score)
    searched(0)
    first = 1000 * (time.perf_counter() - began)
    assert snapshot.moments == segment.rows + 2 * VIDEOS * MOMENTS
    times = dict(alone_ms=alone, beside_ms=beside, quiet_ms=quiet, added_ms=added)
    return dict(times, first_ms=first)


def render_library_adding(result: dict) -> str:
    """A row per figure."""

    def row(name: str, key: str) -> list[str]:
        values = result[key]
        return [name, f'{statistics.median(values):.1f} ms', f'{max(values):.1f} ms']

    rows = [
        row(f'a video of {MOMENTS} moments added', 'quiet_ms'),
        row('the same, beside searches', 'added_ms'),
        row('a search', 'alone_ms'),
        row('a search beside adding', 'beside_ms'),
    ]
    header = [f'{result["moments"]:,} moments', 'median', 'longest']
    note = f'The first search of the grown library takes {result["first_ms"]:.0f} ms.'
    return f'{table(header, rows)}\n\n{note} Load of the machine at the end: {result["load"]:.1f}.'
