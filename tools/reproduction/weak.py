"""What weakly-supervised grounding learns on Shapes, piece by piece."""

import json
import re
import statistics
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

from mmn_plugin.apis.pretrained import load_model
from mmn_plugin.config import build_dataset, load_config
from mmn_plugin.evaluation import ranked_iou, recall

from . import scores
from .running import ROOT, parsed, process_pool, train
from .tables import CHANCE, METRICS, spreads, table, title

WEAK = 'configs/mscl_shapes.py'
CEILING = 'MMN, fully supervised'
ALONE = 'video-level objective alone'
TUNED = 'video-level objective alone, tuned as well'
SINGLE = '+ single-scale contrast'
FULL = '+ multi-scale hard negatives (full)'
CONTROL = 'control: refinements without contrast'
NO_STAGES = ('model.head.windows=[]', 'default_hooks.stages.from_epochs=[]')
# The same settings are tried for the baseline and for the full method, with the same steps. All
# other rows are the full method's best setting without some of its parts. A stage is a loss and a
# refinement; the control keeps all refinements, which widen what a clip sees, and has no contrast.
SETTINGS = tuple(
    (f'model.head.loss_matching.top_share={share}', f'model.neck.kernel_size={kernel}')
    for kernel in (3, 7)
    for share in (0.4, 0.25)
)
TRIALS = {TUNED: tuple((*NO_STAGES, *setting) for setting in SETTINGS), FULL: SETTINGS}
WITHOUT = {
    ALONE: NO_STAGES,
    SINGLE: (
        'model.head.windows=[1]',
        'default_hooks.stages.from_epochs=[3]',
        'model.head.loss_contrast.num_hard=None',
    ),
    CONTROL: ('model.head.contrast_weight=0',),
}
ROWS = (ALONE, SINGLE, FULL, CONTROL, TUNED)
# Which of the runs' thresholds comes first decides R@1; those after it give further answers.
FIRST = (0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
OTHERS = (0.35, 0.5, 0.65, 0.75, 0.8, 0.85, 0.9, 0.95)
THRESHOLDS = tuple((first, *(share for share in OTHERS if share != first)) for first in FIRST)
# Looked at on the validation split before these experiments, with seeds 0 and 1 and 16 epochs:
# docs/weak_supervision.md.
LOOKED_AT = {FULL: 35, TUNED: 9}
# All epochs are kept to choose among them, which makes validation between them idle.
KEEP = (
    'default_hooks.checkpoint.interval=1',
    'default_hooks.checkpoint.max_keep_ckpts=-1',
    'train_cfg.val_interval=99',
)


def weak(seeds: list[int]) -> dict:
    """Self-contrast with ever more of its parts, and chance, on the test split.

    Of a row the setting (if several are tried), the epoch and the runs' first threshold are those
    with the best R@1 at IoU=0.5 on the validation split, mean of the seeds. The ceiling is taken
    from the experiment ``shapes``.
    """
    with process_pool() as pool:
        chosen = choose(pool, TRIALS, seeds)
        best = tuple(chosen[FULL]['options'])
        chosen |= choose(pool, {row: ((*less, *best),) for row, less in WITHOUT.items()}, seeds)
        per_seed = {row: list(pool.map(tested, [chosen[row]] * len(seeds), seeds)) for row in ROWS}
    per_seed[CEILING] = json.loads((ROOT / 'docs/results/shapes.json').read_text())['per_seed']
    return dict(chosen={row: chosen[row] for row in ROWS}, per_seed=per_seed)


def choose(pool: ProcessPoolExecutor, trials: dict[str, tuple], seeds: list[int]) -> dict:
    """The best setting of each row, and all that was tried."""
    jobs = [(options, seed) for row in trials.values() for options in row for seed in seeds]
    jobs = list(dict.fromkeys(jobs))
    figures = dict(zip(jobs, pool.map(validated, *zip(*jobs, strict=True)), strict=True))
    chosen = {}
    for row, settings in trials.items():
        tried = []
        for options in settings:
            runs = [figures[options, seed] for seed in seeds]
            epochs = [best_thresholds(epoch) for epoch in zip(*runs, strict=True)]
            tried.append(dict(options=list(options), epochs=epochs))
        best, epoch = max(
            ((trial, epoch) for trial in tried for epoch in range(len(trial['epochs']))),
            key=lambda place: place[0]['epochs'][place[1]]['R1@0.5'],
        )
        about = dict(options=best['options'], epoch=epoch + 1)
        chosen[row] = about | best['epochs'][epoch] | dict(tried=tried)
    return chosen


def best_thresholds(epoch: tuple[list[float], ...]) -> dict:
    """Thresholds with the best mean of the seeds in an epoch."""
    means = [statistics.fmean(values) for values in zip(*epoch, strict=True)]
    best = max(range(len(means)), key=means.__getitem__)
    return {'run_thresholds': list(THRESHOLDS[best]), 'R1@0.5': means[best]}


def run_of(options: tuple[str, ...], seed: int) -> tuple[Path, float]:
    """The folder of a training, and its seconds."""
    short = (re.sub(r'^.*\.(?=\w+=)', '', option) for option in options)
    name = re.sub(r'[^\w.]+', '-', '_'.join(['weak', *short]))
    work, used = train(name, seed, (*options, *KEEP), WEAK, 1)
    return ROOT / work, used


def validated(options: tuple[str, ...], seed: int) -> list[list[float]]:
    """R@1 at IoU=0.5 on the validation split, for each epoch and each of ``THRESHOLDS``."""
    folder, _ = run_of(options, seed)
    figures = []
    for epoch in range(1, len(list(folder.glob('epoch_*.pth'))) + 1):
        _, head, found = compared(options, folder / f'epoch_{epoch}.pth', 'val')
        truth = torch.cat([sample.gt_instances.moments for sample, *_ in found])
        figures.append([])
        for thresholds in THRESHOLDS:
            samples = ranked(head, found, thresholds)
            best = torch.cat([sample.pred_instances.moments[:, :1] for sample in samples])
            hits = recall(ranked_iou(best, truth), [1], [0.5])  # best: (S, 1, 2)
            figures[-1].append(100 * hits.item())
    return figures


def compared(options: tuple[str, ...], checkpoint: Path, split: str) -> tuple:
    """Config, head, and the split's videos as `scores.compared` gives them."""
    init_default_scope('mmaction')
    with chdir(ROOT):  # paths of configs start there
        cfg = load_config(WEAK, parsed(options))
        model = load_model(cfg, str(checkpoint), 'cpu')
        return cfg, model.head, scores.compared(model, build_dataset(cfg, split))


def ranked(head, found: list[tuple], thresholds: tuple[float, ...]) -> list:
    """The samples of `compared` with the moments that other thresholds of the runs give."""
    head.run_thresholds = tuple(thresholds)
    return scores.ranked(head, found)


def tested(chosen: dict, seed: int) -> dict[str, float]:
    """The test split's metrics."""
    folder, used = run_of(chosen['options'], seed)
    checkpoint = folder / f'epoch_{chosen["epoch"]}.pth'
    cfg, head, found = compared(chosen['options'], checkpoint, 'test')
    with chdir(ROOT):
        return used | scores.evaluated(cfg, ranked(head, found, chosen['run_thresholds']))


def render_weak(result: dict) -> str:
    """Figures on the test split, chance first, with how many settings they were chosen from."""
    per_seed = result['per_seed']
    rows = [[CHANCE, '', *spreads(per_seed[FULL], [f'chance/{name}' for name in METRICS])]]
    for label, seeds in per_seed.items():
        tried = len(result['chosen'][label]['tried']) if label in ROWS else 0
        looked = ' + '.join(str(count) for count in (LOOKED_AT.get(label), tried) if count)
        rows.append([label, looked, *spreads(seeds, METRICS)])
    return table(['test split, %', 'settings looked at', *map(title, METRICS)], rows) + (
        f'\n\nSettings looked at, on the validation split: before these runs {LOOKED_AT[FULL]} of '
        f'the contrast and {LOOKED_AT[TUNED]} of the video-level objective alone, then the ones of '
        'these runs. The full method is the best of the most settings, which favors it over the '
        'other rows; those of 1 take its setting. The further thresholds of the runs and their '
        'weights, the same for all rows, were chosen there too. MMN is as it ships.'
    )
