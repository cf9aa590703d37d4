"""What a batch in pieces costs beside a batch at once."""

import os
from argparse import Namespace

import torch
from benchmark import Benchmark, Subject, alone, interleave, peak_of, prepared

from .tables import table

CONFIG = 'configs/mmn_captions.py'
VIDEOS, PIECE = 512, 32
WAYS = {  # videos of a step, and of a piece
    f'{PIECE} at once': (PIECE, None),
    f'{VIDEOS} in pieces of {PIECE}': (VIDEOS, PIECE),
    f'{VIDEOS} at once': (VIDEOS, None),
}


def pieces(repeats: int) -> dict:
    """A training step each way, in turns, on one CPU thread, and its peak of memory."""
    load, rows = os.getloadavg()[0], alone(steps, repeats)
    for row in rows:
        row['peak_mb'] = alone(peak_of, arguments(*WAYS[row['name']]))
    return dict(config=CONFIG, rows=rows, load=load)


def arguments(videos: int, piece: int | None) -> Namespace:
    """The benchmark's command line."""
    options = {} if piece is None else {'model.head.negatives.piece': piece}
    how = dict(task='train', device='cpu', conv_mode=['auto'], dtype=['fp32'], frozen=False)
    return Namespace(config=CONFIG, cfg_options=options, batch_size=videos, **how)


def steps(repeats: int) -> list[dict]:
    """Figures of each way."""
    torch.set_num_threads(1)
    subjects = []
    with prepared('cpu'):
        for name, way in WAYS.items():
            (step,) = Benchmark(arguments(*way)).subjects()
            subjects.append(Subject(name, step.run, counts=step.counts))
        interleave(subjects, repeats)
    return [subject.row(subjects[0]) for subject in subjects]


def render_pieces(result: dict) -> str:
    """A row per way; times are compared within a round."""
    first, rows = result['rows'][0], []
    for row in result['rows']:
        per_video = 1e3 * row['seconds'] / row['videos']
        against = first['videos'] / row['videos'] / row['ratio']
        figures = f'{per_video:.1f} ms ± {row["spread"]:.0%}', f'{against:.2f}x'
        rows.append([row['name'], *figures, f'{row["peak_mb"]:,.0f} MB'])
    header = ['videos of a step', 'time per video', f'against {first["name"]}', 'peak memory']
    return f'{table(header, rows)}\n\nLoad of the machine at the start: {result["load"]:.1f}.'
