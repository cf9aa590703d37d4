"""Packages from a folder of wheels, for a machine without network; needs Python alone."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What the machine has stays: a GPU's PyTorch belongs to its driver.
KEPT = ('torch-', 'torchvision-', 'torchaudio-', 'triton-', 'nvidia_')
BEGUN = 'MMN_WHEELS'


def wheels_of(arguments: list[str]) -> Path | None:
    """The folder that a command line names with ``--wheels``, in any way that argparse takes."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('--wheels', type=Path, metavar='DIR')
    return parser.parse_known_args(arguments)[0].wheels


def use_wheels(folder: Path) -> None:
    """Install a folder's wheels into a new temporary folder, and begin this program again with it.

    They come before what is installed; PyTorch and what belongs to it are left out. The checkout is
    importable too, and nothing is asked of the Hugging Face hub.
    """
    if os.environ.get(BEGUN):
        return
    wheels = [path for path in sorted(folder.glob('*.whl')) if not path.name.startswith(KEPT)]
    if not wheels:
        sys.exit(f'{folder} holds no wheels')
    target = tempfile.mkdtemp(prefix='mmn_wheels_')
    command = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-index', '--no-deps']
    subprocess.run([*command, '--target', target, *wheels], check=True)
    paths = [target, str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    os.environ |= {BEGUN: target, 'PYTHONPATH': os.pathsep.join(paths), 'HF_HUB_OFFLINE': '1'}
    os.execv(sys.executable, [sys.executable, *sys.argv])
