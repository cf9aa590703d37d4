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
TIMED = list(WAYS)[:2]


def pieces(repeats: int) -> dict:
    """CPU time of training steps, in turns, on one thread, and the peak memory of each way."""
    load = os.getloadavg()[0]
    seconds = alone(seconds_per_video, repeats)
    rows = [
        dict(
            name=name,
            seconds_per_video=seconds.get(name),
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
    found, most = {name: [] for name in TIMED}, max(WAYS[name][0] for name in TIMED)
    with prepared('cpu'):
        steps = {name: Benchmark(arguments(*WAYS[name])).subjects()[0] for name in TIMED}
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
    first, rows = result['rows'][0]['seconds_per_video'], []
    for row in result['rows']:
        figures, seconds = ['', ''], row['seconds_per_video']
        if seconds is not None:
            ratio = statistics.median(
                own / plain for own, plain in zip(seconds, first, strict=True)
            )
            figures = [f'{1e3 * statistics.median(seconds):.1f} ms', f'{ratio:.2f}x']
        rows.append([row['name'], *figures, f'{row["peak_mb"]:,.0f} MB'])
    header = ['videos of a step', 'CPU time per video', f'against {result["rows"][0]["name"]}']
    text = table([*header, 'peak memory'], rows)
    return f'{text}\n\nLoad of the machine at the start: {result["load"]:.1f}.'
