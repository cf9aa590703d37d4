"""What libraries of Shapes' videos say of sentences about what is in none of their videos."""

import os
import statistics
import tempfile
from contextlib import chdir
from pathlib import Path

import numpy as np
import torch

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.config import load_config
from mmn_plugin.evaluation import auroc
from mmn_plugin.library import MomentLibrary
from mmn_plugin.shapes import WholeTruth
from mmn_plugin.structures.annotations import read_annotations

from .library import kept_of
from .running import CONFIG, ROOT
from .tables import spreads, table

CORPUS = 'data/shapes'
SIZES = dict(val=(20, 60, 120), test=(20, 60, 180))  # videos of a library
UNRELATED = 0.95  # the threshold of a library whose config has none


def library_presence(seeds: list[int]) -> dict:
    """Shares of sentences that libraries of several sizes answer, as `MomentLibrary` gives them.

    Presence of the test split's libraries is compared with the config's ``presence_threshold``,
    and the threshold that validation gives, ``chosen``, is told for each seed. The trainings are
    those of the experiment ``shapes``, as they are found.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    runs, trainings = kept_of(CONFIG, seeds)
    settings = dict(load_config(ROOT / CONFIG).library)
    rows = [dict(presence_of(run, settings), seed=seed) for seed, run in runs.items()]
    return dict(trainings=trainings, settings=settings, per_seed=rows)


def presence_of(checkpoint: Path, settings: dict) -> dict:
    """Figures of one model: ``chosen``, and for each size of a library those of the test split."""
    with chdir(ROOT):
        model = GroundingInferencer(CONFIG, checkpoint, 'cpu')
        found = {
            split: {size: asked(model, settings, split, size) for size in sizes}
            for split, sizes in SIZES.items()
        }
    limits = dict(unrelated=UNRELATED, default=settings['presence_threshold'])
    rows = {}
    for size, (present, absent) in found['test'].items():
        rows[size] = dict(present=len(present), absent=len(absent))
        rows[size]['auroc'] = 100 * auroc(present, absent)
        for name, limit in limits.items():
            rows[size][f'{name}_answered'] = 100 * float((present >= limit).mean())
            rows[size][f'{name}_refused'] = 100 * float((absent < limit).mean())
    return dict(chosen=chosen(list(found['val'].values())), sizes=rows)


def asked(model, settings: dict, split: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Presence of sentences about what occurs in a library and about what never does.

    Of all libraries of so many videos that a split is cut into.
    """
    truth, found = WholeTruth(CORPUS), ([], [])
    ids = [video.video_id for video in read_annotations(f'{CORPUS}/annotations/{split}.json')]
    for start in range(0, len(ids) - size + 1, size):
        part = ids[start : start + size]
        with tempfile.TemporaryDirectory() as folder:
            library = MomentLibrary.create(Path(folder, 'LIB'), model, settings)
            report = library.add([f'{CORPUS}/features.h5::{name}' for name in part])
            assert len(report.added) == size, report.failures
            for kind, sentences in zip(found, truth.drawn_sentences(part), strict=True):
                kind += [hits[0].presence for hits in library.search(sentences, top=1)]
    return np.array(found[0]), np.array(found[1])


def chosen(sizes: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The threshold with the best mean of what is answered and refused rightly, over all sizes."""
    limits = np.unique(np.concatenate([values for pair in sizes for values in pair]))
    quality = np.zeros(len(limits))
    for present, absent in sizes:
        quality -= np.searchsorted(np.sort(present), limits) / len(present)  # refused wrongly
        quality += np.searchsorted(np.sort(absent), limits) / len(absent)  # refused rightly
    return float(limits[quality.argmax()])


def render_library_presence(result: dict) -> str:
    """A row per size of library."""
    rows, names = [], ('auroc', 'default_answered', 'default_refused')
    names += ('unrelated_answered', 'unrelated_refused')
    per_seed, default = result['per_seed'], result['settings']['presence_threshold']
    for size in per_seed[0]['sizes']:
        found = [seed['sizes'][size] for seed in per_seed]
        rows.append([f'{size} videos', *spreads(found, names)])
    header = ['library', 'AUROC, %']
    for limit in (default, UNRELATED):
        header += [f'answered at {limit:g}, of what occurs, %', 'refused, of what does not, %']
    mean = statistics.fmean(seed['chosen'] for seed in per_seed)
    by_seed = ', '.join(f'{seed["chosen"]:.4f}' for seed in per_seed)
    return (
        f'{table(header, rows)}\n\nThresholds that validation gives, by seed: {by_seed} '
        f'(mean {mean:.4f}).'
    )
