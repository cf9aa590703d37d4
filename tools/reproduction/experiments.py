"""What is measured, but for the faults: every function returns what its JSON holds."""

import json
import re
import subprocess
from argparse import Namespace
from collections.abc import Callable
from itertools import pairwise

from .running import ROOT, WORK, of_tool, run, shared_folder, train_and_test

WORDS = ('blank', 'colour', 'shape', 'action')
# Negatives of one sentence: videos per process and forward pass, options of the hook. A step of
# the optimiser is 16 videos in all of them (2 processes, gradients accumulated), so that nothing
# else differs but the videos over which BatchNorm takes its statistics.
VIDEOS_PER_STEP = 16
QUEUE = dict(queue_size=64, from_epoch=3)
SCHEDULED = dict(from_epoch='default_hooks')  # the rest is the head's
NEGATIVES = {
    'local, 2 videos': (2, {}),
    'local, 4 videos': (4, {}),
    'local, 8 videos': (8, {}),
    'global, 2 x 8 videos': (8, dict(scope='global')),
    'local, 8 videos, and a queue of 64': (8, QUEUE),
    'global, 2 x 8 videos, and a queue of 64': (8, dict(scope='global', **QUEUE)),
}


def shapes(args: Namespace) -> dict:
    """MMN on Shapes."""
    return dict(per_seed=[train_and_test('shapes', seed) for seed in args.seeds])


def shapes_words(args: Namespace) -> dict:
    """MMN on Shapes, trained and tested with only some of each sentence's words."""
    result = {}
    for kept in WORDS:
        files = (
            f'{split}_dataloader.dataset.ann_file=ablations/{kept}/{split}.json'
            for split in ('train', 'val', 'test')
        )
        options = (*files, 'test_evaluator.subsets=None')
        result[kept] = [train_and_test(kept, seed, options) for seed in args.seeds]
    return dict(per_seed=result)


def negatives(args: Namespace) -> dict:
    """MMN on Shapes with negatives from more and more videos."""
    result = {}
    for label, (videos, hook) in NEGATIVES.items():
        options = (
            f'train_dataloader.batch_size={videos}',
            f'optim_wrapper.accumulative_counts={VIDEOS_PER_STEP // (2 * videos)}',
            'optim_wrapper.optimizer.lr=1e-3',  # the config's, scaled from its 32 videos a step
            *(
                f'{SCHEDULED.get(key, "model.head")}.negatives.{key}={value}'
                for key, value in hook.items()
            ),
        )
        name = 'negatives_' + re.sub(r'\W+', '_', label)
        result[label] = [train_and_test(name, seed, options) for seed in args.seeds]
    return dict(per_seed=result)


def negatives_cost(args: Namespace) -> dict:
    """Memory and time of the losses for growing numbers of negatives."""
    return dict(figures=of_tool('negatives_cost'))


def quickstart(args: Namespace) -> dict:
    """Seconds that each step of tools/quickstart.sh takes after installation."""
    folder = WORK / 'quickstart'
    subprocess.run(['rm', '-rf', str(ROOT / folder)], check=True)
    output = run('bash', 'tools/quickstart.sh', '--out', folder, capture=True)
    print(output)
    steps = [
        (int(seconds), text)
        for seconds, text in re.findall(r'^\[ *(\d+) s\] (.*)$', output, flags=re.MULTILINE)
    ]
    durations = {text.split(' ', 2)[1]: end - begin for (begin, text), (end, _) in pairwise(steps)}
    metrics = json.loads((ROOT / folder / 'work_dirs/mmn_shapes/results.json').read_text())
    return dict(seconds=durations, total_seconds=steps[-1][0], metrics=metrics)


def dataset_cost(args: Namespace) -> dict:
    """Time and memory of building the ActivityNet Captions training set."""
    annotations = shared_folder() / 'data' / 'annotations' / 'activitynet' / 'train.json'
    return dict(figures=of_tool('dataset_cost', annotations))


def agreement(args: Namespace) -> dict:
    """Differences from the published code's figures, quantity by quantity."""
    return agreement_of(lambda name: not name.startswith('hcstvg'))


def agreement_of(chosen: Callable[[str], bool]) -> dict:
    """The same of the files whose names are chosen."""
    golden = shared_folder() / 'golden'
    files = [path for path in sorted(golden.glob('*.npz')) if chosen(path.name)]
    return dict(
        modes={
            mode: of_tool('verify_reference', *files, '--conv-mode', mode)
            for mode in ('dense', 'sparse')
        }
    )
