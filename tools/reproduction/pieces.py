"""What a batch in pieces costs beside a batch at once."""

import os
import statistics
import time
from argparse import Namespace

import torch
from benchmark import Benchmark, alone, peak_of, prepared

from .tables import table

CONFIG = 'configs/mmn_captions.py'
VIDEOS, PIECE = 512, 32
WAYS = {  # videos of a step, and of a piece
    f'{PIECE} at once': (PIECE, None),
    f'{VIDEOS} in pieces of {PIECE}': (VIDEOS, PIECE),
    f'{VIDEOS} at once': (VIDEOS, None),
}


def pieces(repeats: int) -> dict:
    """CPU time of training steps, in turns, on one thread, and the peak memory of each way."""
    load = os.getloadavg()[0]
    seconds = alone(seconds_per_video, repeats)
    rows = [
        dict(
            name=name,
            seconds_per_video=seconds[name],
            peak_mb=alone(peak_of, arguments(*way)),
        )
        for name, way in WAYS.items()
    ]
    return dict(config=CONFIG, rows=rows, load=load)


def arguments(videos: int, piece: int | None) -> Namespace:
    """The benchmark's command line."""
    options = {} if piece is None else {'model.head.negatives.piece': piece}
    how = dict(task='train', device='cpu', conv_mode=['auto'], dtype=['fp32'], frozen=False)
    return Namespace(config=CONFIG, cfg_options=options, batch_size=videos, **how)


def seconds_per_video(repeats: int) -> dict[str, list[float]]:
    """CPU time of each way, once per repeat after a step that is not timed.

    Other programs slow a clock more than the time of a CPU. Each turn takes as many videos.
    """
    torch.set_num_threads(1)
    found, most = {name: [] for name in WAYS}, max(videos for videos, _ in WAYS.values())
    with prepared('cpu'):
        steps = {name: Benchmark(arguments(*WAYS[name])).subjects()[0] for name in WAYS}
        for step in steps.values():
            step()
        for _ in range(repeats):
            for name, step in steps.items():
                began = time.process_time()
                for _ in range(most // WAYS[name][0]):
                    step()
                found[name].append((time.process_time() - began) / most)
    return found


def render_pieces(result: dict) -> str:
    """A row per way; times are compared within a turn."""
    rows, found = [], result['rows']
    for row in found:
        cells = [f'{1e3 * statistics.median(row["seconds_per_video"]):.1f} ms']
        for other in (found[0], found[-1]):
            pairs = zip(row['seconds_per_video'], other['seconds_per_video'], strict=True)
            cells.append(f'{statistics.median(own / plain for own, plain in pairs):.2f}x')
        rows.append([row['name'], *cells, f'{row["peak_mb"]:,.0f} MB'])
    header = ['videos of a step', 'CPU time per video']
    header += [f'against {other["name"]}' for other in (found[0], found[-1])]
    text = table([*header, 'peak memory'], rows)
    return f'{text}\n\nLoad of the machine at the start: {result["load"]:.1f}.'
