"""Build the wheel, install it in a scratch environment and use it there as a user would.

    python tools/check_wheel.py [--environment FOLDER]

In an empty folder it builds every model of the index, renders twelve videos of Shapes, extracts
their features, runs ``mim train`` and ``mim test``, trains an epoch from downstream configs of all
three kinds, then repeats the essentials after ``pip install -e`` and ``mim install --no-deps -e``.
Needs nothing but Python and pip's index.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ONE_EPOCH = ('--cfg-options', 'train_cfg.max_epochs=1')
WHERE = 'from mmn_plugin.files import package_data_root; print(package_data_root())'
READ_BASE = """
from mmengine.config import read_base
with read_base():
    from mmn_plugin.configs.mmn_shapes import *
train_cfg.update(max_epochs=1)
"""
TRAIN = """
import pathlib, sys
import mmn_plugin, mmaction.models
from mmengine.config import Config
from mmengine.runner import Runner
place, config, name = pathlib.Path(mmn_plugin.__file__), Config.fromfile(sys.argv[1]), sys.argv[2]
assert name in place.parts, f'imported {place}, not the package under test'
config.work_dir = f'out/{pathlib.Path(sys.argv[1]).stem}'
Runner.from_cfg(config).train()
assert pathlib.Path(config.work_dir, 'epoch_1.pth').is_file()
"""

# Every model of the index with few channels, its extractor and its datasets, without any weights.
BUILD = """
import yaml
from mmaction.registry import DATASETS, MODELS
from mmn_plugin.config import load_config
from mmn_plugin.datasets import grounds_tubes, single_configs
from mmn_plugin.features import build_extractor
from mmn_plugin.files import package_data_root
root = package_data_root()
files = yaml.safe_load((root / 'model-index.yml').read_text())['Import']
for entry in sum((yaml.safe_load((root / name).read_text())['Models'] for name in files), []):
    config = load_config(root / entry['Config'])
    for part in [part for part in config.model.values() if isinstance(part, dict)]:
        part.update({k: 8 for k in ('out_channels', 'channels', 'embed_channels') if k in part})
        if part.get('features'):  # of the size of the joint space
            part.features = config.model.backbone.in_channels = 8
        if part.get('type') == 'SentenceEncoder' and part.pop('name_or_path', None):
            part.config = dict(model_type='distilbert', vocab_size=64, dim=8, n_heads=2)
    print(entry['Name'], type(MODELS.build(config.model)).__name__)
    if 'extractor' in config and not grounds_tubes(config):
        build_extractor(config.extractor)
    for split in ('train', 'val', 'test'):
        for part in single_configs((config.get(f'{split}_dataloader') or {}).get('dataset') or {}):
            if part:
                DATASETS.build(dict(part, lazy_init=True))
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
        self.environment, self.bin = environment, environment / 'bin'

    def step(self, title: str, line: str, *arguments, cwd: Path | None = None) -> None:
        """Run a command of the environment quietly; on failure show its output and stop."""
        started = time.time()
        kept = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'VIRTUAL_ENV')}
        kept['PATH'] = f'{self.bin}:{kept["PATH"]}'
        done = subprocess.run(
            [f'{self.bin}/{line.split()[0]}', *line.split()[1:], *map(str, arguments)],
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
        listed = ('git', 'ls-files', '-co', '--exclude-standard', '-z')
        for name in subprocess.check_output(listed, cwd=ROOT, text=True).split('\0'):
            if name and (ROOT / name).is_file():
                (self.source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.source / name)
        if not self.bin.exists():
            venv.create(self.environment, with_pip=True)
        pip, dist = 'python -m pip -q', self.work.parent / 'dist'
        needs = [f'-r{self.source}/requirements/{name}.txt' for name in ('pinned', 'mim')]
        self.step('install the pinned requirements and openmim', f'{pip} install', *needs)
        self.step('build the sdist', 'python setup.py -q sdist -d', dist, cwd=self.source)
        wheel = f'{pip} wheel --no-deps --no-build-isolation -w'
        self.step('build the wheel from the sdist', wheel, dist, next(dist.glob('*.tar.gz')))
        wheel = f'{pip} install --force-reinstall --no-deps'
        self.step('install the wheel', wheel, next(dist.glob('*.whl')))
        self.step('requirements agree', f'{pip} check')

    def package_data(self) -> str:
        """Folder that holds the installed configs and tools."""
        command = [self.bin / 'python', '-c', WHERE]
        return subprocess.check_output(command, cwd=self.work, text=True).splitlines()[-1]

    def use_mim(self) -> None:
        """The command ``mmn``; ``mim train`` and ``mim test`` of a config known by its name."""
        self.step('mmn', 'mmn --version')
        (self.work / 'build.py').write_text(BUILD)
        self.step('build every model of the index', 'python build.py')
        render = f'python {self.package_data()}/tools/data/make_shapes.py'
        self.step('render a corpus', f'{render} data/shapes --videos 12 --workers 0')
        extract = 'mmn extract data/shapes/videos --out data/shapes/features.h5'
        self.step('mmn extract', extract)
        train = 'mim train mmn_plugin mmn_shapes.py'
        self.step('mim train', f'{train} --work-dir mim', *ONE_EPOCH)
        test = 'mim test mmn_plugin mmn_shapes.py --checkpoint mim/epoch_1.pth --dump'
        self.step('mim test', test, 'predictions.json')
        assert (self.work / 'predictions.json').stat().st_size
        launched = f'{train} --launcher pytorch --gpus 1 --work-dir mim_dist'
        self.step('mim train, launched by torch', launched, *ONE_EPOCH)

    def inherit(self) -> None:
        """Train an epoch from downstream configs of all three kinds."""
        (self.work / 'train.py').write_text(TRAIN)
        configs = {
            f'by_{kind}': f'_base_ = {base!r}\ntrain_cfg = dict(max_epochs=1)\n'
            for kind, base in (
                ('prefix', 'mmn_plugin::mmn_shapes.py'),
                ('path', f'{self.package_data()}/configs/mmn_shapes.py'),
            )
        }
        configs['by_read_base'] = READ_BASE
        for name, text in configs.items():
            (self.work / f'{name}.py').write_text(text)
            self.step(f'train {name}', f'python train.py {name}.py site-packages')
        self.step('mim train with a downstream config', 'mim train mmn_plugin by_prefix.py')

    def install_editable(self) -> None:
        """The same through an editable install, by pip and by mim."""
        self.step('remove the wheel', 'python -m pip -q uninstall -y mmn_plugin')
        for installer in ('python -m pip', 'mim'):
            line = f'{installer} install --no-deps --no-build-isolation -e'
            self.step(f'{installer} install --no-deps -e', line, self.source)
            for name in ('by_prefix', 'by_read_base'):
                self.step(f'train {name}, editable', f'python train.py {name}.py source')
        tool = ('mmn_shapes.py', '--work-dir', 'editable', *ONE_EPOCH)
        self.step('tools/train.py NAME, editable', 'python', self.source / 'tools/train.py', *tool)


def main() -> None:
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
    main()
