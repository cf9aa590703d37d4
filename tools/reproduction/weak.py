"""What weakly-supervised grounding learns on Shapes, piece by piece."""
import json
import statistics
from argparse import Namespace
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

from .renderers import spread, table
from .running import ROOT, train

WEAK = 'configs/mscl_shapes.py'
CEILING = 'MMN, fully supervised'
CHANCE = 'chance (random ranking)'
FULL = '+ multi-scale hard negatives (full)'
# Every row has the same epochs and steps; which epoch's weights and which thresholds for its runs
# are taken is chosen on the validation split among the same ones, once for all seeds. A stage is a
# loss and a refinement; the control keeps all refinements, which widen what a clip sees, and has no
# contrast.
ROWS = {
    'video-level objective alone': (
        'model.head.windows=[]', 'default_hooks.stages.from_epochs=[]'),
    '+ single-scale contrast': (
        'model.head.windows=[1]', 'default_hooks.stages.from_epochs=[3]',
        'model.head.loss_contrast.num_hard=None'),
    FULL: (),
    'control: refinements without contrast': ('model.head.contrast_weight=0',),
}
THRESHOLDS = (*((share,) for share in (.4, .5, .55, .6, .65, .7, .75, .8, .85, .9, .95)),
              (.5, .6, .7), (.6, .7, .8), (.7, .8, .9))
# All epochs are kept to choose among them, which makes validation between them idle.
KEEP = ('default_hooks.checkpoint.max_keep_ckpts=-1', 'train_cfg.val_interval=99')
METRICS = ('R1@0.3', 'R1@0.5', 'R1@0.7', 'mIoU')


def weak(args: Namespace) -> dict:
    """Self-contrast with ever more of its parts, and chance, on the test split.

    The ceiling is taken from the experiment ``shapes``. A stopped experiment goes on after the last
    run that the same code finished.
    """
    chosen, per_seed = {}, {}
    runs = {label: [train(f'weak_{number}', seed, (*options, *KEEP), WEAK, 1, keep=True)
                    for seed in args.seeds] for number, (label, options) in enumerate(ROWS.items())}
    for label, options in ROWS.items():
        folders = [ROOT / work for work, _ in runs[label]]
        epoch, thresholds, chosen[label] = choose(options, folders)
        per_seed[label] = [
            dict(seed=seed, train_seconds=seconds,
                 **tested(options, folder / f'epoch_{epoch}.pth', thresholds))
            for seed, folder, (_, seconds) in zip(args.seeds, folders, runs[label], strict=True)]
    per_seed[CEILING] = json.loads((ROOT / 'docs/results/shapes.json').read_text())['per_seed']
    return dict(chosen=chosen, per_seed=per_seed)


def choose(options: tuple[str, ...], folders: list[Path]) -> tuple[int, list[float], dict]:
    """Epoch and thresholds best on validation, mean of the seeds; and all that was tried."""
    import torch

    from mmn_plugin.evaluation.functional.recall import ranked_iou, recall_of_iou

    tried = {}
    for epoch in range(1, len(list(folders[0].glob('epoch_*.pth'))) + 1):
        figures = {str(list(thresholds)): [] for thresholds in THRESHOLDS}
        for folder in folders:
            _, head, samples = predicted(options, folder / f'epoch_{epoch}.pth', 'val')
            truth = torch.cat([sample.gt_instances.moments for sample in samples])
            for thresholds in THRESHOLDS:
                best = torch.cat([sample.pred_instances.moments[:, :1]
                                  for sample in ranked(head, samples, thresholds)])  # (S, 1, 2)
                hits = recall_of_iou(ranked_iou(best, truth), [1], [0.5])
                figures[str(list(thresholds))].append(100 * hits.item())
        tried[epoch] = {name: statistics.fmean(values) for name, values in figures.items()}
    epoch = max(tried, key=lambda number: max(tried[number].values()))
    best = max(tried[epoch], key=tried[epoch].get)
    return epoch, json.loads(best), dict(
        epoch=epoch, run_thresholds=json.loads(best), validation=tried)


def predicted(options: tuple[str, ...], checkpoint: Path, split: str) -> tuple:
    """Config, head, and the split's data samples with their score curves."""
    from mmengine.config import DictAction
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    from mmn_plugin.apis.load_model import load_model
    from mmn_plugin.engine.runner import load_config

    values = dict(option.split('=', 1) for option in options)
    init_default_scope('mmaction')
    with chdir(ROOT):  # paths of configs start there
        cfg = load_config(WEAK, {key: DictAction._parse_iterable(value)
                                 for key, value in values.items()})
        loader = dict(cfg[f'{split}_dataloader'], num_workers=0, persistent_workers=False)
        model = load_model(cfg, str(checkpoint), 'cpu')
        samples = [sample for batch in Runner.build_dataloader(loader)
                   for sample in model.test_step(batch)]
    return cfg, model.head, samples


def ranked(head, samples: list, thresholds: Sequence[float]) -> list:
    """The samples with the moments that other thresholds give of their curves."""
    import torch

    head.run_thresholds = tuple(thresholds)
    curves = torch.cat([sample.pred_instances.curves for sample in samples])  # (S, N)
    video = torch.repeat_interleave(torch.tensor([len(s.sentences) for s in samples]))
    return head.rank_curves(curves, video, samples)


def tested(options: tuple[str, ...], checkpoint: Path,
           thresholds: Sequence[float]) -> dict[str, float]:
    """The test split's metrics."""
    from mmengine.evaluator import Evaluator

    cfg, head, samples = predicted(options, checkpoint, 'test')
    with chdir(ROOT):
        evaluator = Evaluator(cfg.test_evaluator)
        evaluator.process(ranked(head, samples, thresholds))
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
