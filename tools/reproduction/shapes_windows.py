"""Sentences that are true of no moment, of one or of two: what each way to train makes of them."""

import json
import statistics
import sys
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import replace

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmn_plugin.apis.pretrained import load_model
from mmn_plugin.config import build_dataset, load_config
from mmn_plugin.evaluation import GroundingMetric, GroundingResult
from mmn_plugin.evaluation.presence import Presence
from mmn_plugin.evaluation.recall import PRECISION_WINDOWS
from mmn_plugin.files import write_json

from .library_presence import chosen
from .running import ROOT, WORK, best_of, process_pool, run, train
from .scores import compared
from .tables import spreads, table, title

CONFIG = 'configs/mmn_shapes_windows.py'
CORPUS = 'data/shapes_windows'
VIDEOS = 1000
ALONE = WORK / 'shapes_windows_alone.json'
# How sentences are learned from, with the options of the config. Before, training had to do with
# those that have one window.
ROWS = {
    'one window alone': (f'train_dataloader.dataset.ann_file={ROOT / ALONE}',),
    'all; absent ones take part in nothing': ('model.head.absent=ignore',),
    'all; absent ones repel': (),
    'all; absent ones repel; best moments of the sentence': ('model.head.positives=sentence',),
}
KINDS = {
    'all': '',
    'another action': 'action/',
    'another color': 'color/',
    'elsewhere': 'elsewhere/',
    'never trained': 'untrained/',
}
COUNTS = {'one window': 'once/', 'two windows': 'twice/', 'unseen combinations': 'unseen/'}
FOUND = ('R1@0.5', 'R1@0.7', 'mAP')
# Presence of a sentence: the largest contrastive cosine, which is the model's, or the best score.
SCORE = 'score/'


def shapes_windows(seeds: list[int]) -> dict:
    """MMN on Shapes with absent and repeated moments, one thread and one process a training."""
    jobs = [(row, seed) for seed in seeds for row in ROWS]
    with process_pool() as pool:
        make_corpus()
        figures = dict(zip(jobs, pool.map(figures_of, *zip(*jobs, strict=True)), strict=True))
    return dict(per_seed={row: [figures[row, seed] for seed in seeds] for row in ROWS})


def make_corpus() -> None:
    """Corpus, features, and the sentences of training that have one window alone."""
    folder = ROOT / CORPUS
    options = ('--videos', VIDEOS, '--absent-and-repeated', '--workers', 1)
    run(sys.executable, 'tools/data/make_shapes.py', CORPUS, *options)
    if not (folder / 'features.h5').is_file():
        features = ('--out', f'{CORPUS}/features.h5')
        run(sys.executable, '-m', 'mmn', 'extract', f'{CORPUS}/videos', *features)
    videos = json.loads((folder / 'annotations/train.json').read_text())
    (ROOT / WORK).mkdir(parents=True, exist_ok=True)
    write_json({name: alone(video) for name, video in videos.items()}, ROOT / ALONE)


def alone(video: dict) -> dict:
    """A video's annotation with those sentences that have one window."""
    pairs = zip(video['timestamps'], video['sentences'], strict=True)
    kept = [(times, text) for times, text in pairs if times and not isinstance(times[0], list)]
    return video | dict(timestamps=[t for t, _ in kept], sentences=[text for _, text in kept])


def figures_of(row: str, seed: int) -> dict:
    """What training took, and figures of its best checkpoint on the test split."""
    torch.set_num_threads(1)
    work, used = train(f'shapes_windows_{list(ROWS).index(row)}', seed, ROWS[row], CONFIG, 1)
    with chdir(ROOT):  # paths of configs start there
        init_default_scope('mmaction')
        config = load_config(CONFIG)
        model = load_model(config, str(best_of(work)), 'cpu')
        val, test = (answered(model, build_dataset(config, split)) for split in ('val', 'test'))
        figures = scored(config, val, test)
        by_score = [[replace(r, presence=None) for r in split] for split in (val, test)]
        for name, value in scored(config, *by_score).items():
            if 'absent' in name or name == 'threshold':
                figures[f'{SCORE}{name}'] = value
    return used | figures


def answered(model, dataset) -> list[GroundingResult]:
    """A split with the model's moments and presence."""
    results = []
    for sample, video, cosines in compared(model, dataset):
        presence = model.head.presence_of(video, cosines)
        scores = model.head.fuse(cosines, video)
        sample.pred_instances = model.head.rank(video, scores, PRECISION_WINDOWS, presence=presence)
        results.append(GroundingResult.from_data_sample(sample.to_dict()))
    return results


def scored(
    config: Config, val: Sequence[GroundingResult], test: Sequence[GroundingResult]
) -> dict[str, float]:
    """Figures of test, with the threshold of presence that is the most accurate one on val."""
    threshold = chosen([presences(val)])
    settings = dict(config.test_evaluator, subsets=subsets_of(test), presence_threshold=threshold)
    del settings['type']
    metric = GroundingMetric(**settings)
    return metric.flatten(metric.summarize(test)) | dict(threshold=threshold)


def presences(results: Sequence[GroundingResult]) -> tuple[np.ndarray, np.ndarray]:
    """Presence of the sentences that have a window, and of those that have none."""
    values = Presence.of(results).values.double()
    absent = torch.tensor([not len(own) for result in results for own in result.windows])
    return values[~absent].numpy(), values[absent].numpy()


def subsets_of(results: Sequence[GroundingResult]) -> dict[str, dict]:
    """Subsets of test: present sentences by count of windows, and absent ones of a kind with all
    present ones, which they are to be told from.
    """
    folder = ROOT / CORPUS / 'annotations'
    present = json.loads((folder / 'test_subsets.json').read_text())
    absent = json.loads((folder / 'test_absent.json').read_text())
    here = {
        result.video_id: [
            index
            for index, windows in zip(result.sentence_index, result.windows, strict=True)
            if len(windows)
        ]
        for result in results
    }
    beside = {
        kind: {video: [*here[video], *videos.get(video, [])] for video in here}
        for kind, videos in absent.items()
    }
    return {name: present[name] for name in ('once', 'twice', 'unseen')} | beside


def render_shapes_windows(result: dict) -> str:
    """Where sentences are found by count of windows; then how absent ones are told apart."""
    per_seed = result['per_seed']
    header = [f'{name}: {title(metric)}' for name in COUNTS for metric in FOUND]
    found = [
        [row, *spreads(seeds, [prefix + metric for prefix in COUNTS.values() for metric in FOUND])]
        for row, seeds in per_seed.items()
    ]
    aurocs = [f'{prefix}absent/AUROC' for prefix in KINDS.values()]
    told = []
    for row, seeds in per_seed.items():
        for source, prefix in (('cosine', ''), ('score', SCORE)):
            names = [*aurocs, 'absent/kept', 'absent/rejected']
            names += [f'{kind}absent/rejected' for kind in KINDS.values() if kind]
            told.append([row, source, *spreads(seeds, [prefix + name for name in names])])
    columns = [f'AUROC: {kind}' for kind in KINDS] + ['present kept', 'absent rejected']
    columns += [f'rejected: {kind}' for kind in KINDS if kind != 'all']
    limits = ', '.join(
        f'{statistics.fmean(seed["threshold"] for seed in seeds):.3f}'
        for seeds in per_seed.values()
    )
    minutes = sum(seed['train_cpu_seconds'] for seeds in per_seed.values() for seed in seeds) / 60
    some = next(iter(per_seed.values()))[0]
    return (
        f'{table(["trained on", *header], found)}\n\n'
        f'{table(["trained on", "presence", *columns], told)}\n\n'
        f'{some["once/num_sentences"]:.0f} sentences of the test split have one window, '
        f'{some["twice/num_sentences"]:.0f} two, {some["absent/num_sentences"]:.0f} none; '
        f'{some["unseen/num_sentences"]:.0f} of the former are of unseen combinations. '
        'Kept and rejected are at the threshold with the highest mean of both on validation; of '
        f'the cosine, mean of the seeds, in the order of the rows: {limits}. All trainings '
        f'together took {minutes:.0f} CPU minutes.'
    )
