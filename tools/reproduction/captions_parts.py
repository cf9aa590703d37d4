"""Which parts of the weakly-supervised method help on real language, and which do harm."""

import os
from contextlib import chdir
from pathlib import Path

import torch
from mmaction.registry import TRANSFORMS

from mmn_plugin.config import build_dataset, load_config
from mmn_plugin.structures import temporal_iou

from .captions import HEADS, IN_ORDER, MSCL, hits, loaded, make_corpus
from .running import ROOT, best_of, train
from .scores import compared, ranked, summarized
from .tables import spreads, table, title

SHIPPED = 'as it ships'
VIDEO_LEVEL = (
    'default_hooks.negatives.full_through_epoch=3',
    'default_hooks.negatives.late_factor=1.0',
)
RANDOM = ('model.neck.identity=False', 'model.text_encoder.identity=False')
# Options of the training; None is no training at all.
PARTS = {
    'no training: cosines of the sentence encoder': None,
    SHIPPED: (),
    'with the objective of whole videos too': VIDEO_LEVEL,
    'that, and embeddings from random weights': (*VIDEO_LEVEL, *RANDOM),
    'that objective alone, embeddings as shipped': (*VIDEO_LEVEL, 'model.head.contrast_weight=0.0'),
}
RUNS = 'as it ships, runs above thresholds for stretches'
THRESHOLDS = (0.5, 0.35, 0.65, 0.75, 0.8, 0.85, 0.9, 0.95)
# Weights of changes in the moments that MMN trains with.
ORDERS = {'equal parts of the video': 0.0, 'ends moved to where it changes': 0.5}
LEVELS = (0.3, 0.5, 0.7)
METRICS = ('R1@0.3', 'R1@0.5', 'R1@0.7', 'R5@0.5', 'mIoU')


def captions_parts(seeds: list[int]) -> dict:
    """MSCL on captions without one part or with another, on the validation split.

    Of each training the epoch, the weight of surroundings and that of the length are the best ones,
    as in the experiment ``captions``. And how good the moments are that MMN trains with there
    instead of timestamps.
    """
    make_corpus()
    os.environ['OMP_NUM_THREADS'] = '1'
    torch.set_num_threads(1)
    per_seed: dict[str, list] = {label: [] for label in (*PARTS, RUNS)}
    for seed in seeds:
        for place, (label, options) in enumerate(PARTS.items()):
            checkpoint = None
            if options is not None:
                name = Path(MSCL).stem + (f'_{place}' if options else '')
                checkpoint = best_of(train(name, seed, options, MSCL, 1)[0])
            per_seed[label].append(figures(checkpoint, HEADS[MSCL]) | dict(seed=seed))
            if label == SHIPPED:
                runs = dict(run_thresholds=THRESHOLDS, nms_threshold=0.7)
                per_seed[RUNS].append(figures(checkpoint, [runs]) | dict(seed=seed))
    return dict(per_seed=per_seed, in_order={name: in_order(w) for name, w in ORDERS.items()})


def in_order(change_weight: float) -> dict[str, float]:
    """How near the moments of `MomentsInOrder` are to the true ones, which they do not know."""
    with chdir(ROOT):
        cfg = load_config(IN_ORDER)
        dataset = build_dataset(cfg, 'val')
        steps = cfg.train_dataloader.dataset.pipeline
        (settings,) = (step for step in steps if step.type == 'MomentsInOrder')
        give = TRANSFORMS.build(dict(settings, change_weight=change_weight))
        found, truth = [], []
        for packed in dataset:
            sample = packed['data_samples']
            results = dict(sample.metainfo, features=packed['inputs'])
            found.append(torch.tensor(give.transform(results)['windows'])[:, 0])
            truth.append(sample.gt_instances.moments)
    iou = temporal_iou(torch.cat(found), torch.cat(truth))
    levels = {f'R1@{level}': 100 * (iou >= level).double().mean().item() for level in LEVELS}
    return levels | dict(mIoU=100 * iou.double().mean().item())


@torch.no_grad()
def figures(checkpoint: Path | None, heads: list[dict]) -> dict[str, float]:
    """Metrics on validation with the best of these settings of the head."""
    with chdir(ROOT):
        _, model, dataset = loaded(MSCL, checkpoint, 'val')
        found = compared(model, dataset)
    tried = []
    for settings in heads:
        for name, value in settings.items():
            setattr(model.head, name, value)
        samples = ranked(model.head, found)
        tried.append((hits(samples), summarized(samples) | settings))
    return max(tried, key=lambda trial: trial[0])[1]


def render_captions_parts(result: dict) -> str:
    """A row per variant."""
    rows = [[label, *spreads(seeds, METRICS)] for label, seeds in result['per_seed'].items()]
    text = table(['MSCL, validation split, %', *map(title, METRICS)], rows)
    names = [*(f'R1@{level}' for level in LEVELS), 'mIoU']
    rows = [[label, *spreads([found], names)] for label, found in result['in_order'].items()]
    return f'{text}\n\n{table(["moments in order, validation split, %", *map(title, names)], rows)}'
