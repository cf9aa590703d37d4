"""What limits negatives over a library: MMN on captions with one setting changed at a time."""

from collections.abc import Iterator
from contextlib import chdir

import torch

from .captions import MMN
from .negatives_library import (
    COLUMNS,
    HEAD,
    OF_CAPTIONS,
    measured,
    of_epochs,
    on_validation,
    start,
    table_trials,
    trained_model,
)
from .running import ROOT, train
from .tables import table

RESULT = ROOT / 'docs/results/negatives_limits.json'


def of_temperature(value: float) -> tuple[str, ...]:
    """Options of a training with this temperature in both directions."""
    return tuple(
        f'{HEAD}.loss_matching.temperature_{side}={value}' for side in ('video', 'sentence')
    )


# What may limit local negatives: options of a training.
FEATURES = (
    'model.backbone.keep_features=True',
    'model.neck.features=384',
    'model.neck.embed_channels=384',
    'model.text_encoder.embed_channels=384',
    'model.text_encoder.identity=True',
)
LEARNT = 'temperatures that are learnt, from 0.1 on'
LIMIT_CONFIGS = {LEARNT: 'tools/reproduction/learnt_temperature_config.py'}  # of others: MMN's
LANGUAGE = (
    'model.text_encoder.frozen=False',
    'optim_wrapper.paramwise_cfg.custom_keys.bert.lr_mult=0.1',
)
LIMITS = {
    'the config': (),
    'weight of the contrastive losses 0.3 instead of 0.1': (f'{HEAD}.contrastive_weight=0.3',),
    'weight 1': (f'{HEAD}.contrastive_weight=1.0',),
    'temperature 0.05 instead of 0.1': of_temperature(0.05),
    'temperature 0.2': of_temperature(0.2),
    LEARNT: (),
    'joint spaces of 384 instead of 128': tuple(
        f'model.{part}.embed_channels=384' for part in ('neck', 'text_encoder')
    ),
    "no moments of a sentence's own video": (f'{HEAD}.loss_matching.negative_iou=0.0',),
    'twice the epochs': (*of_epochs(8), 'param_scheduler.1.T_max=8'),
    'a language model that is trained': LANGUAGE,
    "a contrastive space that begins as the features' own": FEATURES,
    'likewise, and a language model that is trained': (*FEATURES, *LANGUAGE),
    'likewise, temperature 0.05': (*FEATURES, *of_temperature(0.05)),
    'likewise, weight 0.3': (*FEATURES, f'{HEAD}.contrastive_weight=0.3'),
    'kernels of 3 instead of 5': ('model.neck.kernel_size=3',),
}


def negatives_limits() -> Iterator[dict]:
    """MMN on captions with one setting changed, first seed, on validation; each row as it ends.

    Rows that the result has already are taken as of `negatives_library`.
    """
    runs, part = start(RESULT, lambda run: run['options'] == limit_options(run['row']))
    for _ in measured(limited, [(row,) for row in LIMITS], runs, lambda run: (run['row'],)):
        yield part
    yield part


def limit_options(row: str) -> list[str]:
    """Options of a row's training; none of a row that is none of the table's."""
    return [*OF_CAPTIONS, *LIMITS[row]] if row in LIMITS else []


def limited(row: str) -> dict:
    """Figures on validation of one training."""
    torch.set_num_threads(1)
    options = limit_options(row)
    name = f'negatives_limits_{list(LIMITS).index(row)}'
    config = LIMIT_CONFIGS.get(row, MMN)
    work, used = train(name, 0, tuple(options), config, 1)
    with chdir(ROOT):
        cfg, model = trained_model(work, config)
        found = on_validation(cfg, model, 1, table_trials(cfg, model))
    figures = {name: trial['figures'] | trial['library'] for name, trial in found.items()}
    return dict(row=row, options=options, **used, **figures)


def render_negatives_limits(result: dict) -> str:
    """A row for each change."""
    columns = {title: place for title, place in COLUMNS.items() if place[1] != 'presence'}
    rows = []
    for run in sorted(result['runs'], key=lambda run: [*LIMITS].index(run['row'])):
        cells = [f'{run[own][name]:.1f}' for own, name in columns.values()]
        rows.append([run['row'], *cells, f'{run["train_cpu_seconds"] / 60:.0f}'])
    about = 'MMN on captions, validation (500 videos), one seed, IoU=0.5, %'
    return table([about, *columns, 'CPU minutes'], rows)
