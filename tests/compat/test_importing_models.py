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
    assert 'VindLUVQA is not available: ' in done.stdout


@pytest.mark.skipif((MMACTION / 'models/localizers/drn').is_dir(), reason='MMAction2 has its DRN')
def test_stock_release_lacks_drn():
    done = python('import mmn_plugin, mmaction.models', without='stand_in_for_drn')
    assert 'mmaction.models.localizers.drn' in done.stderr
    assert done.returncode == 1


@pytest.mark.skipif(importlib.util.find_spec('timm') is not None, reason='timm is installed')
def test_stock_release_cannot_import_vindlu():
    code = 'import mmn_plugin, mmaction.models'
    done = python(code, without='stand_in_for_vindlu,quiet_known_warnings')
    assert 'vindlu' in done.stderr
    assert 'UserWarning: Fail to import ``MultiScaleDeformableAttention``' in done.stderr
    assert done.returncode == 1


def other_mmaction(folder, vindlu):
    """The installed MMAction2 with a DRN, and with the given source for VindLU."""
    copy = folder / 'mmaction'
    shutil.copytree(MMACTION, copy, ignore=shutil.ignore_patterns('.mim', '__pycache__', 'vindlu'))
    for name, text in (
        ('localizers/drn/__init__.py', ''),
        ('localizers/drn/drn.py', REGISTERED.format('DRN')),
        ('multimodal/vindlu/__init__.py', vindlu),
    ):
        path = copy / 'models' / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


REGISTERED = (
    'from mmaction.registry import MODELS\n@MODELS.register_module()\nclass {}:\n    real = True\n'
)


def test_real_drn_and_vindlu_stay(tmp_path):
    done = python(
        'import mmn_plugin, mmaction.models\n'
        'from mmaction.registry import MODELS\n'
        'assert MODELS.get("DRN").real and MODELS.get("VindLUVQA").real\n'
        'assert MODELS.get("VindLURetrieval") is None\n',
        other_mmaction(tmp_path, REGISTERED.format('VindLUVQA')),
    )
    assert done.returncode == 0, done.stderr


def test_half_imported_vindlu_is_undone(tmp_path):
    # timm is there, but a name is gone from transformers after the first class was registered
    broken = REGISTERED.format('VindLURetrieval') + 'from transformers import gone_since_5\n'
    done = python(
        'import mmn_plugin, mmaction.models\n'
        'from mmaction.registry import MODELS\n'
        'assert not hasattr(MODELS.get("VindLURetrieval"), "real")\n'
        'MODELS.build(dict(type="VindLURetrieval"))\n',
        other_mmaction(tmp_path, broken),
    )
    assert done.stderr.splitlines()[-1].startswith('ImportError: VindLURetrieval is not available')
    assert 'gone_since_5' in done.stderr


def test_missing_mmcv_is_said_plainly(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    requirements = ROOT / 'requirements/runtime.txt'
    needed = re.search(r'^mmcv-lite\S+', requirements.read_text(), re.MULTILINE)[0]
    with pytest.raises(ImportError, match=re.escape(f'pip install "{needed}"')):
        compat.require_mmcv()
