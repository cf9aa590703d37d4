"""What is measured, but for the faults: every function returns what its JSON holds."""

import json
import pickle
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from .running import ROOT, WORK, alone, of_tool, peak_mb, run, shared_folder, train_and_test

# Negatives of one sentence: videos per process and forward pass, options of the hook. A step of
# the optimizer is 16 videos in all of them (2 processes, gradients accumulated), so that nothing
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


def shapes(seeds: list[int]) -> dict:
    """MMN on Shapes."""
    return dict(per_seed=[train_and_test('shapes', seed) for seed in seeds])


def negatives(seeds: list[int]) -> dict:
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
        result[label] = [train_and_test(name, seed, options) for seed in seeds]
    return dict(per_seed=result)


def quickstart() -> dict:
    """Seconds that each step of tools/quickstart.sh takes after installation."""
    folder = WORK / 'quickstart'
    shutil.rmtree(ROOT / folder, ignore_errors=True)
    output = run('bash', 'tools/quickstart.sh', '--out', folder, capture=True)
    print(output)
    steps = [
        (int(seconds), text)
        for seconds, text in re.findall(r'^\[ *(\d+) s\] (.*)$', output, flags=re.MULTILINE)
    ]
    durations = {text.split(' ', 2)[1]: end - begin for (begin, text), (end, _) in pairwise(steps)}
    metrics = json.loads((ROOT / folder / 'work_dirs/mmn_shapes/results.json').read_text())
    return dict(seconds=durations, total_seconds=steps[-1][0], metrics=metrics)


def dataset_cost() -> dict:
    """Time and memory of building the ActivityNet Captions training set, in its own process."""
    from mmn_plugin.datasets import write_random_features

    annotations = shared_folder() / 'data' / 'annotations' / 'activitynet' / 'train.json'
    with tempfile.TemporaryDirectory() as folder:
        features = f'{folder}/features.hdf5'
        write_random_features(features, json.loads(annotations.read_text()), 8, 8)
        return dict(figures=alone(build_dataset, annotations, features))


def build_dataset(annotations: Path, features: str) -> dict:
    """Build a dataset; the videos, seconds, and megabytes."""
    from mmn_plugin.datasets import TemporalGroundingDataset

    before, began = peak_mb(), time.perf_counter()
    dataset = TemporalGroundingDataset(ann_file=annotations, data_prefix=dict(features=features))
    return dict(
        videos=len(dataset),
        seconds=time.perf_counter() - began,
        peak_growth_mb=peak_mb() - before,
        kept_mb=len(pickle.dumps(dataset)) / 2**20,
    )


def agreement() -> dict:
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
