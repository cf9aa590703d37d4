"""What weakly-supervised grounding learns on Shapes, piece by piece."""
from argparse import Namespace

from .renderers import spread, table
from .running import CONFIG, train_and_test

WEAK = 'configs/mscl_shapes.py'
CEILING = 'MMN, fully supervised'
CHANCE = 'chance (random ranking)'
FULL = '+ multi-scale hard negatives (full)'
# Every row has the same epochs, and of the same twelve sets of thresholds for its runs the best on
# the validation split. A stage is a loss and a refinement; the control keeps all refinements, which
# widen what a clip sees, and has no contrast.
ROWS = {
    'video-level objective alone': (WEAK, (
        'model.head.windows=[]', 'default_hooks.stages.from_epochs=[]',
        'model.head.run_thresholds=[0.65]')),
    '+ single-scale contrast': (WEAK, (
        'model.head.windows=[1]', 'default_hooks.stages.from_epochs=[4]',
        'model.head.loss_contrast.num_hard=None', 'model.head.run_thresholds=[0.75]')),
    FULL: (WEAK, ()),
    'control: refinements without contrast': (WEAK, ('model.head.contrast_weight=0',)),
    CEILING: (CONFIG, ()),
}
METRICS = ('R1@0.3', 'R1@0.5', 'R1@0.7', 'mIoU')


def weak(args: Namespace) -> dict:
    """Self-contrast with ever more of its parts, chance and the supervised ceiling."""
    result = {}
    for number, (label, (config, options)) in enumerate(ROWS.items()):
        result[label] = [train_and_test(f'weak_{number}', seed, options, config)
                         for seed in args.seeds]
    return dict(per_seed=result)


def render_weak(result: dict) -> str:
    """Figures on the test split, chance first."""
    per_seed = result['per_seed']
    rows = [[CHANCE, *(spread([seed[f'chance/{name}'] for seed in per_seed[FULL]])
                       for name in METRICS)]]
    rows += [[label, *(spread([seed[name] for seed in seeds]) for name in METRICS)]
             for label, seeds in per_seed.items()]
    return table(['test split, %', 'R@1, IoU=0.3', 'R@1, IoU=0.5', 'R@1, IoU=0.7', 'mIoU'], rows)
