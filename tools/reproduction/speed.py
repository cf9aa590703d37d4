"""What faster ways of training change in the figures."""

import re
from argparse import Namespace

from .renderers import spread, table
from .running import train_and_test

NAMES = ('R1@0.3', 'R1@0.5', 'R1@0.7', 'mIoU', 'unseen/R1@0.5')
BF16 = ('optim_wrapper.type=CPUAmpOptimWrapper', 'val_cfg.fp16=True', 'test_cfg.fp16=True')
PRECISIONS = {'float32': (), 'bfloat16': BF16}


def precision(args: Namespace) -> dict:
    """MMN on Shapes, trained and tested in float32 and under bfloat16 autocast."""
    return _variants('precision', PRECISIONS, args.seeds)


def _variants(name: str, variants: dict[str, tuple[str, ...]], seeds: list[int]) -> dict:
    return dict(
        per_seed={
            label: [
                train_and_test(f'{name}_{re.sub(r"[^a-z0-9]+", "_", label)}', seed, options)
                for seed in seeds
            ]
            for label, options in variants.items()
        }
    )


def render_precision(result: dict) -> str:
    """Figures by precision."""
    return _rendered('computed in', result)


def _rendered(title: str, result: dict) -> str:
    rows = [
        [
            label,
            *(spread([seed[name] for seed in per_seed]) for name in NAMES),
            f'{spread([seed["train_seconds"] / 60 for seed in per_seed])} min',
        ]
        for label, per_seed in result['per_seed'].items()
    ]
    return table(
        [
            title,
            'R@1, IoU=0.3',
            'R@1, IoU=0.5',
            'R@1, IoU=0.7',
            'mIoU',
            'R@1, IoU=0.5, unseen combinations',
            'training',
        ],
        rows,
    )
