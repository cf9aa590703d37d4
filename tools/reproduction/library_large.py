"""A library as large as ActivityNet's test split: a million moments, several times with noise."""

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from mmn_plugin.library import ExactSearch, Segment, SegmentWriter

from .library_speed import TOP_N, PeakMemory, at, large_captions
from .running import ROOT, WORK
from .tables import table

MOMENTS = 5_390_000  # of 4,885 videos with a grid of 64 clips
NOISE = 0.1  # norm of what is added to each vector
SENTENCES, TOGETHER = 20, 50_000


def library_large(repeats: int) -> dict:
    """Milliseconds of searches in both sizes, in turns.

    Args:
        repeats (int): Rounds over the sentences.
    """
    segment, sentences, score = large_captions()
    with tempfile.TemporaryDirectory(dir=ROOT / WORK) as scratch:
        path = Path(scratch) / 'large.moments'
        write_tiled(path, segment)
        large = ExactSearch([Segment(path)], score)
        began = time.perf_counter()
        large(at(sentences, 0), TOP_N)
        first = time.perf_counter() - began
        searches = {segment.rows: ExactSearch([segment], score), MOMENTS: large}
        searches[segment.rows](at(sentences, 0), TOP_N)  # as the larger one's, above
        took = {rows: [] for rows in searches}
        with PeakMemory() as memory:
            for place in list(range(SENTENCES)) * repeats:
                for rows, search in searches.items():
                    began = time.perf_counter()
                    search(at(sentences, place), TOP_N)
                    took[rows].append(1000 * (time.perf_counter() - began))
    figures = [dict(moments=rows, ms=values) for rows, values in took.items()]
    about = dict(first_answer_seconds=first, peak_mb=memory.megabytes)
    return dict(figures=figures, load=os.getloadavg()[0], **about)


def write_tiled(path: Path, segment: Segment) -> None:
    """A segment's vectors again and again, each with noise of its own, as unit vectors."""
    draw = np.random.default_rng(0)
    with SegmentWriter(path, MOMENTS, segment.axes, own_rotation=False) as writer:
        for start in range(0, MOMENTS, TOGETHER):
            rows = np.arange(start, min(start + TOGETHER, MOMENTS)) % segment.rows
            vectors = {}
            for space in segment.spaces:
                values = segment.vectors(space, rows) @ segment.rotation[space]
                noise = draw.standard_normal(values.shape, np.float32)
                values += NOISE / np.sqrt(values.shape[1], dtype=np.float32) * noise
                vectors[space] = values / np.linalg.norm(values, axis=1, keepdims=True)
            writer.append(vectors, np.zeros((len(rows), 2), np.float32), segment.lengths[rows])
        writer.close()


def render_library_large(result: dict) -> str:
    """A row per size."""
    rows = []
    for found in result['figures']:
        longest = statistics.quantiles(found['ms'], n=20)[-1]
        rows.append([f'{found["moments"]:,}', f'{statistics.median(found["ms"]):.1f} ms'])
        rows[-1].append(f'{longest:.1f} ms')
    note = (
        f'The first answer of the larger one comes after {result["first_answer_seconds"]:.2f} s; '
        f'{result["peak_mb"]:.0f} MB beyond the memory map.'
    )
    shown = table(['moments', 'median', '95 %'], rows)
    return f'{shown}\n\n{note} Load of the machine at the end: {result["load"]:.1f}.'
