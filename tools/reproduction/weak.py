"""What weakly-supervised grounding learns on Shapes, piece by piece."""
import json
import statistics
from argparse import Namespace
from contextlib import chdir
from pathlib import Path

from .renderers import spread, table
from .running import ROOT, train

WEAK = 'configs/mscl_shapes.py'
CEILING = 'MMN, fully supervised'
CHANCE = 'chance (random ranking)'
FULL = '+ multi-scale hard negatives (full)'
# Every row has the same epochs and steps, and its runs' thresholds are the best on the validation
# split of the same ones (`THRESHOLDS`), one for all seeds. A stage is a loss and a refinement; the
# control keeps all refinements, which widen what a clip sees, and has no contrast.
ROWS = {
    'video-level objective alone': (
        'model.head.windows=[]', 'default_hooks.stages.from_epochs=[]'),
    '+ single-scale contrast': (
        'model.head.windows=[1]', 'default_hooks.stages.from_epochs=[4]',
        'model.head.loss_contrast.num_hard=None'),
    FULL: (),
    'control: refinements without contrast': ('model.head.contrast_weight=0',),
}
THRESHOLDS = (*((share,) for share in (.4, .5, .55, .6, .65, .7, .75, .8, .85, .9, .95)),
              (.5, .6, .7), (.6, .7, .8), (.7, .8, .9))
METRICS = ('R1@0.3', 'R1@0.5', 'R1@0.7', 'mIoU')


def weak(args: Namespace) -> dict:
    """Self-contrast with ever more of its parts, and chance, on the test split.

    The ceiling is taken from the experiment ``shapes``. The last checkpoint of a run counts, so
    that nothing but the thresholds is chosen on the validation split. A stopped experiment goes on
    after the last run that the same commit finished.
    """
    runs, per_seed, chosen = {}, {}, {}
    for number, (label, options) in enumerate(ROWS.items()):
        runs[label] = [train(f'weak_{number}', seed, options, WEAK, keep=True)
                       for seed in args.seeds]
    for label, options in ROWS.items():
        found = [scores_of(options, ROOT / work) for work, _ in runs[label]]
        tried = {str(list(thresholds)): [
            figures(cfg, 'val', *val, thresholds)['R1@0.5'] for cfg, val, _ in found]
            for thresholds in THRESHOLDS}
        best = max(tried, key=lambda name: statistics.fmean(tried[name]))
        chosen[label] = dict(run_thresholds=json.loads(best), validation=tried)
        per_seed[label] = [
            dict(seed=seed, train_seconds=seconds,
                 **figures(cfg, 'test', *test, json.loads(best)))
            for seed, (_, seconds), (cfg, _, test) in zip(
                args.seeds, runs[label], found, strict=True)]
    per_seed[CEILING] = json.loads((ROOT / 'docs/results/shapes.json').read_text())['per_seed']
    return dict(chosen=chosen, per_seed=per_seed)


def scores_of(options: tuple[str, ...], work: Path) -> tuple:
    """Config, and (model, data samples with score curves) of the validation and the test split."""
    from mmengine.config import DictAction
    from mmengine.runner import Runner

    from mmn_plugin.apis.load_model import load_model
    from mmn_plugin.engine.runner import load_config

    values = dict(option.split('=', 1) for option in options)
    with chdir(ROOT):  # paths of configs start there
        cfg = load_config(WEAK, {key: DictAction._parse_iterable(value)
                                 for key, value in values.items()})
        last = max(work.glob('epoch_*.pth'), key=lambda path: path.stat().st_mtime)
        model, splits = load_model(cfg, str(last), 'cpu'), []
        for split in ('val', 'test'):
            loader = dict(cfg[f'{split}_dataloader'], num_workers=0, persistent_workers=False)
            splits.append((model, [sample for batch in Runner.build_dataloader(loader)
                                   for sample in model.test_step(batch)]))
    return cfg, *splits


def figures(cfg, split: str, model, samples: list, thresholds) -> dict[str, float]:
    """The split's metrics with other thresholds for the runs of the samples' curves."""
    import torch
    from mmengine.evaluator import Evaluator

    model.head.run_thresholds = tuple(thresholds)
    curves = torch.cat([sample.pred_instances.curves for sample in samples])  # (S, N)
    video = torch.repeat_interleave(torch.tensor([len(s.sentences) for s in samples]))
    with chdir(ROOT):
        evaluator = Evaluator(cfg[f'{split}_evaluator'])
        evaluator.process(model.head.rank_curves(curves, video, samples))
        metrics = evaluator.evaluate(len(samples))
    return {key.removeprefix('grounding/'): value for key, value in metrics.items()}


def render_weak(result: dict) -> str:
    """Figures on the test split, chance first."""
    per_seed = result['per_seed']
    rows = [[CHANCE, *(spread([seed[f'chance/{name}'] for seed in per_seed[FULL]])
                       for name in METRICS)]]
    rows += [[label, *(spread([seed[name] for seed in seeds]) for name in METRICS)]
             for label, seeds in per_seed.items()]
    return table(['test split, %', 'R@1, IoU=0.3', 'R@1, IoU=0.5', 'R@1, IoU=0.7', 'mIoU'], rows)
