"""Build the wheel, install it in a scratch environment and use it there as a user would.

    python tools/check_wheel.py [--environment FOLDER]

In an empty folder with a corpus of four videos it runs ``mim train`` and ``mim test``, trains an
iteration from downstream configs of all three kinds, then repeats the essentials after
``pip install -e`` and ``mim install --no-deps -e``. Needs nothing but Python and pip's index.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

CORPUS = """
import json, pathlib, h5py, numpy
folder = pathlib.Path('data/shapes')
(folder / 'annotations').mkdir(parents=True)
random, words = numpy.random.default_rng(0), 'a red square moves left up'.split()
vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *words]
(folder / 'vocab.txt').write_text('\\n'.join(vocabulary) + '\\n')
with h5py.File(folder / 'features.h5', 'w') as features:
    for split in ('train', 'val', 'test'):
        videos = {}
        for index in range(4):
            name = f'{split}_{index}'
            features[name] = random.random((32, 174), dtype='float32')
            videos[name] = dict(duration=24.0, timestamps=[[1.5, 6.0], [9.0, 15.0]],
                                sentences=['a red square moves left', 'a square moves up'])
        (folder / 'annotations' / f'{split}.json').write_text(json.dumps(videos))
subsets = folder / 'annotations' / 'test_subsets.json'
subsets.write_text(json.dumps(dict(unseen=dict(test_0=[0]))))
"""

# What a downstream project changes; each value replaces the one that it inherits.
CHANGES = """
corpus = dict(
    data_root='data/shapes/', data_prefix=dict(features='features.h5'),
    pipeline=[dict(type='LoadClipFeatures'), dict(type='PoolClipFeatures', num_segments=32),
              dict(type='PackGroundingInputs')])
splits = {split: dict(num_workers=0, persistent_workers=False,
                      dataset=dict(ann_file=f'annotations/{split}.json', **corpus))
          for split in ('train', 'val', 'test')}
sizes = dict(
    data_preprocessor=dict(tokenizer=dict(name_or_path=None, vocab='data/shapes/vocab.txt')),
    grid=dict(num_clips=16, pooling_counts=[15]),
    backbone=dict(in_channels=174, out_channels=8, kernel_size=2, stride=2),
    neck=dict(channels=8, embed_channels=8, num_layers=1),
    text_encoder=dict(embed_channels=8, name_or_path=None, config=dict(
        model_type='distilbert', vocab_size=16, dim=8, n_heads=2, n_layers=1, hidden_dim=8)))
"""
INHERIT = """
train_dataloader, val_dataloader, test_dataloader = splits.values()
model, train_cfg = sizes, dict(max_epochs=1)
del corpus, splits, sizes
"""
READ_BASE = """
from mmengine.config import read_base
with read_base():
    from mmn_plugin.configs.mmn_tacos import *
"""
MERGE = """
train_dataloader.merge(splits['train'])
val_dataloader.merge(splits['val'])
test_dataloader.merge(splits['test'])
model.merge(sizes)
train_cfg.update(max_epochs=1)
del corpus, splits, sizes
"""

TRAIN = """
import pathlib, sys
import mmn_plugin, mmaction.models
from mmn_plugin.files import config_root
from mmengine.config import Config
from mmengine.runner import Runner
place, config, name = pathlib.Path(mmn_plugin.__file__), Config.fromfile(sys.argv[1]), sys.argv[2]
assert name in place.parts, f'imported {place}, not the package under test'
config.work_dir = f'out/{pathlib.Path(sys.argv[1]).stem}'
Runner.from_cfg(config).train()
assert pathlib.Path(config.work_dir, 'epoch_1.pth').is_file()
"""


class Check:
    """A scratch environment and the steps of the check.

    Args:
        scratch (Path): empty folder for everything.
        environment (Path): virtual environment; made if it does not exist.
    """

    def __init__(self, scratch: Path, environment: Path):
        self.work, self.source = scratch / 'empty', scratch / 'source'
        self.work.mkdir()
        self.environment = environment
        self.bin = environment / ('Scripts' if os.name == 'nt' else 'bin')

    def step(self, title: str, *command, cwd: Path | None = None) -> None:
        """Run a command quietly; on failure show its output and stop."""
        started = time.time()
        kept = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'VIRTUAL_ENV')}
        kept['PATH'] = os.pathsep.join([str(self.bin), kept['PATH']])
        done = subprocess.run(
            [str(self.bin / command[0]), *map(str, command[1:])],
            cwd=cwd or self.work,
            env=kept,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        verdict = 'ok' if done.returncode == 0 else 'FAILED'
        print(f'{verdict:6s} {time.time() - started:6.1f} s  {title}', flush=True)
        if done.returncode:
            print(done.stdout[-6000:])
            raise SystemExit(1)

    def install(self) -> None:
        """Source copy, requirements, sdist, wheel from the sdist, and that wheel installed."""
        listed = subprocess.run(
            ['git', 'ls-files', '-co', '--exclude-standard', '-z'],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split('\0')):
            if (ROOT / name).is_file():
                (self.source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.source / name)
        if not self.bin.exists():
            venv.create(self.environment, with_pip=True)
        pip = ('python', '-m', 'pip', '-q')
        needs = [f'-r{self.source}/requirements/{name}.txt' for name in ('pinned', 'mim')]
        self.step('install the pinned requirements and openmim', *pip, 'install', *needs)
        dist = self.work.parent / 'dist'
        self.step(
            'build the sdist', 'python', 'setup.py', '-q', 'sdist', '-d', dist, cwd=self.source
        )
        wheel = ('wheel', '--no-deps', '--no-build-isolation', '-w', dist)
        self.step('build the wheel from the sdist', *pip, *wheel, next(dist.glob('*.tar.gz')))
        wheel = next(dist.glob('*.whl'))
        self.step('install the wheel', *pip, 'install', '--force-reinstall', '--no-deps', wheel)
        self.step('requirements agree', *pip, 'check')

    def use_mim(self) -> None:
        """The command ``mmn``; ``mim train`` and ``mim test`` of a config known by its name."""
        self.step('mmn', 'mmn', '--version')
        self.step('write a corpus of four videos', 'python', '-c', CORPUS)
        options = ('--cfg-options', 'train_cfg.max_epochs=1')
        self.step(
            'mim train',
            'mim',
            'train',
            'mmn_plugin',
            'mmn_shapes.py',
            '--work-dir',
            'mim',
            *options,
        )
        checkpoint = ('--checkpoint', 'mim/epoch_1.pth')
        self.step(
            'mim test', 'mim', 'test', 'mmn_plugin', 'mmn_shapes.py', *checkpoint,
            '--dump', 'predictions.json',
        )  # fmt: skip
        assert (self.work / 'predictions.json').stat().st_size
        self.step(
            'mim train, launched by torch', 'mim', 'train', 'mmn_plugin', 'mmn_shapes.py',
            '--launcher', 'pytorch', '--gpus', '1', '--work-dir', 'mim_dist', *options,
        )  # fmt: skip

    def inherit(self) -> None:
        """Train an iteration from downstream configs of all three kinds."""
        (self.work / 'train.py').write_text(TRAIN)
        found = subprocess.run(
            [self.bin / 'python', '-c',
             'from mmn_plugin.files import config_root; print(config_root())'],
            cwd=self.work, capture_output=True, text=True, check=True,
        )  # fmt: skip
        path = found.stdout.strip().splitlines()[-1]
        configs = {
            'by_prefix': "_base_ = 'mmn_plugin::mmn_tacos.py'" + CHANGES + INHERIT,
            'by_path': f'_base_ = {path + "/mmn_charades.py"!r}' + CHANGES + INHERIT,
            'by_read_base': READ_BASE + CHANGES + MERGE,
        }
        for name, text in configs.items():
            (self.work / f'{name}.py').write_text(text)
            self.step(f'train {name}', 'python', 'train.py', f'{name}.py', 'site-packages')
        self.step(
            'mim train with a downstream config', 'mim', 'train', 'mmn_plugin', 'by_prefix.py'
        )

    def install_editable(self) -> None:
        """The same through an editable install, by pip and by mim."""
        self.step('remove the wheel', 'python', '-m', 'pip', '-q', 'uninstall', '-y', 'mmn_plugin')
        for installer in (('python', '-m', 'pip'), ('mim',)):
            quiet = ('install', '--no-deps', '--no-build-isolation', '-e', self.source)
            self.step(f'{installer[-1]} install --no-deps -e', *installer, *quiet)
            for name in ('by_prefix', 'by_read_base'):
                self.step(f'train {name}, editable', 'python', 'train.py', f'{name}.py', 'source')
        tool = self.source / 'tools/train.py'
        options = ('--work-dir', 'editable', '--cfg-options', 'train_cfg.max_epochs=1')
        self.step('tools/train.py NAME, editable', 'python', tool, 'mmn_shapes.py', *options)


def main():
    """Run all steps in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--environment', type=Path, help='keep the scratch environment here')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='mmn_wheel_') as folder:
        environment = (args.environment or Path(folder) / 'environment').absolute()
        check = Check(Path(folder), environment)
        check.install()
        check.use_mim()
        check.inherit()
        check.install_editable()
    print('the wheel works')


if __name__ == '__main__':
    sys.exit(main())
