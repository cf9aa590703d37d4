"""What pyproject.toml cannot say: the layout that ``mim`` expects, and the choice of mmcv."""

import shutil
import sysconfig
from pathlib import Path

from setuptools import setup
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


def runtime_requirements() -> list[str]:
    """Requirements of requirements/runtime.txt.

    ``mmcv-lite`` and full ``mmcv`` own the same folder, so ``mmcv-lite`` is not required where
    full ``mmcv`` is installed already. (A wheel that was built elsewhere requires ``mmcv-lite``:
    install it with ``--no-deps`` into an environment with full ``mmcv``.)
    """
    lines = (ROOT / 'requirements/runtime.txt').read_text(encoding='utf-8').splitlines()
    requirements = [line.partition('#')[0].strip() for line in lines]
    if any(Path(sysconfig.get_path('purelib')).glob('mmcv-[0-9]*.dist-info')):
        requirements = [r.replace('mmcv-lite', 'mmcv') for r in requirements]
    return list(filter(None, requirements))


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


setup(install_requires=runtime_requirements(), cmdclass={'build_py': BuildWithConfigsAndTools})
