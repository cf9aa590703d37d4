"""MMAction2's models can be imported, and the stock release cannot do that."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmn_plugin import compat

ROOT = Path(__file__).resolve().parents[2]
MMACTION = Path(importlib.util.find_spec('mmaction').origin).parent


def python(code, *paths, without=''):
    """Run code in a fresh process, with some cures left out."""
    path = os.pathsep.join(map(str, [*paths, ROOT]))
    environment = {**os.environ, 'PYTHONPATH': path, 'MMN_PLUGIN_WITHOUT': without}
    return subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, timeout=600
    )


def test_models_import_without_a_word():
    done = python(
        'import mmn_plugin, mmaction.models\n'
        'from mmaction.registry import MODELS\n'
        'for name in ("DRN", "VindLUVQA", "VindLURetrieval"):\n'
        '    try: MODELS.build(dict(type=name))\n'
        '    except ImportError as error: print(error)\n'
        'assert MODELS.get("BMN").__module__ == "mmaction.models.localizers.bmn"\n'
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''
    assert 'DRN is not available: the MMAction2 wheel' in done.stdout
    assert done.stdout.count('requires extra multi-modal dependencies') == 2


@pytest.mark.parametrize(
    ('without', 'said'),
    [
        pytest.param(
            'stand_in_for_drn',
            ["No module named 'mmaction.models.localizers.drn'"],
            marks=pytest.mark.skipif(
                (MMACTION / 'models/localizers/drn').is_dir(), reason='MMAction2 has its DRN'
            ),
        ),
        (
            'leave_out_vindlu,quiet_known_warnings',
            ['vindlu', 'UserWarning: Fail to import ``MultiScaleDeformableAttention``'],
        ),
    ],
)
def test_the_stock_release_cannot_be_imported(without, said):
    done = python('import mmn_plugin, mmaction.models', without=without)
    assert done.returncode == 1
    assert all(text in done.stderr for text in said), done.stderr


def test_the_drn_of_a_checkout_and_the_vindlu_of_a_later_release_stay(tmp_path):
    copy = tmp_path / 'mmaction'
    shutil.copytree(MMACTION, copy, ignore=shutil.ignore_patterns('.mim', '__pycache__', 'vindlu'))
    registered = (
        'from mmaction.registry import MODELS\n@MODELS.register_module()\nclass {}: real = True\n'
    )
    for name, text in (
        ('version.py', "__version__ = '1.2.1'\n"),
        ('models/localizers/drn/__init__.py', ''),
        ('models/localizers/drn/drn.py', registered.format('DRN')),
        ('models/multimodal/vindlu/__init__.py', registered.format('VindLUVQA')),
    ):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(text)
    done = python(
        'import mmn_plugin, mmaction.models\n'
        'from mmaction.registry import MODELS\n'
        'assert MODELS.get("DRN").real and MODELS.get("VindLUVQA").real\n',
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_missing_mmcv_is_said_plainly(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    requirements = ROOT / 'requirements/runtime.txt'
    needed = re.search(r'^mmcv-lite\S+', requirements.read_text(), re.MULTILINE)[0]
    with pytest.raises(ImportError, match=re.escape(f'pip install "{needed}"')):
        compat.require_mmcv()
