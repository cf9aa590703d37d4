"""Packaging. Configs and tools travel inside the package, in the layout that ``mim`` expects."""

import re
import shutil
import sysconfig
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# Tools that work on a checkout, and are of no use in an installed package.
ONLY_IN_CHECKOUT = (
    'check_wheel.py',
    'quickstart.sh',
    'reproduce.py',
    'reproduction',
    'run_tests.sh',
    'setup_venv.sh',
)


def read_requirements(name):
    """Requirements of requirements/NAME.txt, without comments."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line.partition('#')[0].strip() for line in lines if line.partition('#')[0].strip()]


def runtime_requirements():
    """What the package needs.

    ``mmcv-lite`` and full ``mmcv`` own the same folder, so that the one is not asked for where the
    other is installed already. (A wheel that was built elsewhere asks for ``mmcv-lite`` all the
    same: install it with ``--no-deps`` into an environment with full ``mmcv``.)
    """
    requirements = read_requirements('runtime')
    installed = Path(sysconfig.get_path('purelib'))
    if any(installed.glob('mmcv-[0-9]*.dist-info')):
        requirements = [r.replace('mmcv-lite', 'mmcv') for r in requirements]
    return requirements


class BuildWithConfigsAndTools(build_py):
    """Copy configs/, tools/ and model-index.yml to ``mmn_plugin/.mim/`` of what is built."""

    def run(self):
        """Build; an editable install uses the checkout's own folders instead."""
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        target = Path(self.build_lib, 'mmn_plugin', '.mim')
        shutil.rmtree(target, ignore_errors=True)  # a file renamed since must not stay
        for name in ('configs', 'tools'):
            ignore = shutil.ignore_patterns('__pycache__', '*.pyc', *ONLY_IN_CHECKOUT)
            shutil.copytree(ROOT / name, target / name, ignore=ignore)
        shutil.copy2(ROOT / 'model-index.yml', target)


version = re.search(r"__version__ = '(.+)'", (ROOT / 'mmn_plugin' / 'version.py').read_text())[1]
readme = ROOT / 'README.md'

setup(
    name='mmn_plugin',
    version=version,
    description='Temporal grounding for MMAction2 by metric learning (MMN)',
    long_description=readme.read_text(encoding='utf-8') if readme.is_file() else '',
    long_description_content_type='text/markdown',
    author='mmn_plugin authors',
    license='MIT',
    keywords='temporal grounding, video moment retrieval, MMAction2, OpenMMLab',
    python_requires='>=3.11',
    packages=find_packages(include=['mmn_plugin', 'mmn_plugin.*']),
    package_data={'mmn_plugin.webui': ['static/*']},
    cmdclass={'build_py': BuildWithConfigsAndTools},
    install_requires=runtime_requirements(),
    extras_require={
        name: read_requirements(name)
        for name in ('mim', 'onnx', 'tensorboard', 'wandb', 'web', 'dev')
    },
    zip_safe=False,
)
