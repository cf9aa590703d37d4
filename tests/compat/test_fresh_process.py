"""What a process sees that has imported nothing yet: cures of the stack, and what comes when."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.run_tool import ROOT
from helpers.tiny_grounder import write_grounder
from mmengine.config import Config

from mmn_plugin import compat
from mmn_plugin.apis import GroundingInferencer

MMACTION = Path(importlib.util.find_spec('mmaction').origin).parent
# One process imports what neither has a cure nor is asked about, and forks one for each piece of
# code; the seconds that this takes are spent once.
FORKS = """
import json, os, sys
import torch, transformers.models.distilbert.modeling_distilbert
codes = {}
for name, (code, path, without) in json.loads(sys.argv[1]).items():
    if not os.fork():
        for handle, end in ((1, 'out'), (2, 'err')):
            os.dup2(os.open(f'{name}.{end}', os.O_WRONLY | os.O_CREAT), handle)
        sys.path[:0], os.environ['MMN_PLUGIN_WITHOUT'] = path, without
        exec(code)
        sys.exit()
    codes[name] = os.waitstatus_to_exitcode(os.wait()[1])
print(json.dumps(codes))
"""
BY_CONFIG = """
import os, sys, mmn
from mmengine.utils import import_modules_from_strings
import_modules_from_strings(imports=['mmn_plugin'])
assert 'MMN_ON_DEMAND' not in os.environ and os.environ['TOKENIZERS_PARALLELISM'] == 'false'
assert not any(name.startswith('matplotlib') for name in sys.modules)
from mmaction.registry import METRICS, MODELS, VISUALIZERS
assert METRICS.get('GroundingMetric') and MODELS.get('MMN')
assert MODELS.get('BMN').__module__ == 'mmaction.models.localizers.bmn'
for name in ('DRN', 'VindLUVQA', 'VindLURetrieval'):
    try: MODELS.build(dict(type=name))
    except ImportError as error: print(error)
from mmn_plugin.structures import MomentGrid
visualizer = VISUALIZERS.build(dict(type='GroundingVisualizer', name='v'))
visualizer.draw_moment_map(MomentGrid(2, [1]), torch.zeros(3), duration=1.0)
assert 'matplotlib.pyplot' not in sys.modules
"""
ASK = """
from mmn_plugin.apis import GroundingInferencer
assert 'mmn_plugin.shapes' not in sys.modules
print(type(GroundingInferencer(checkpoint={!r}, device='cpu').extractor).__name__)
"""
STOCK = 'import mmn_plugin, mmaction.models'
LATER = """
import mmn_plugin, mmaction.models
from mmaction.registry import MODELS
assert MODELS.get('DRN').real and MODELS.get('VindLUVQA').real
"""


def write_later_release(folder):
    """MMAction2 with a DRN, as in a checkout, and another VindLU."""
    copy = folder / 'mmaction'
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
    return str(folder)


@pytest.fixture(scope='module')
def ended(tmp_path_factory):
    """Exit code, output and errors of every process."""
    folder = tmp_path_factory.mktemp('fresh')
    tiny = write_grounder(folder)
    loaded = torch.load(tiny.checkpoint, weights_only=True)
    loaded['meta']['settings'] = Config.fromfile(tiny.config).to_dict()
    torch.save(loaded, tiny.checkpoint)
    GroundingInferencer(checkpoint=tiny.checkpoint, device='cpu').save_pretrained(folder / 'model')
    cases = dict(
        config=(BY_CONFIG, [], ''),
        checkpoint=(ASK.format(str(tiny.checkpoint)), [], ''),
        folder=(ASK.format(str(folder / 'model')), [], ''),
        drn=(STOCK, [], 'stand_in_for_drn'),
        vindlu=(STOCK, [], 'leave_out_vindlu,quiet_known_warnings'),
        later=(LATER, [write_later_release(folder / 'later')], ''),
    )
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    environment.pop('TOKENIZERS_PARALLELISM', None)
    done = subprocess.run(
        [sys.executable, '-c', FORKS, json.dumps(cases)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return {
        name: (code, *((folder / f'{name}.{end}').read_text() for end in ('out', 'err')))
        for name, code in json.loads(done.stdout).items()
    }


def test_models_import_without_a_word_and_components_are_registered_by_custom_imports(ended):
    code, output, errors = ended['config']
    assert (code, errors) == (0, '')
    assert 'DRN is not available: the MMAction2 wheel' in output
    assert output.count('requires extra multi-modal dependencies') == 2


@pytest.mark.parametrize('name', ['checkpoint', 'folder'])
def test_components_of_shapes_are_registered_where_only_the_checkpoint_names_them(ended, name):
    code, output, errors = ended[name]
    assert (code, output) == (0, 'GridFeatureExtractor\n'), errors


@pytest.mark.skipif((MMACTION / 'models/localizers/drn').is_dir(), reason='MMAction2 has its DRN')
def test_the_stock_release_lacks_its_drn(ended):
    code, _, errors = ended['drn']
    assert code == 1
    assert "No module named 'mmaction.models.localizers.drn'" in errors


def test_the_stock_release_cannot_import_vindlu_and_warns_of_operators(ended):
    code, _, errors = ended['vindlu']
    assert code == 1
    assert 'vindlu' in errors
    assert 'UserWarning: Fail to import ``MultiScaleDeformableAttention``' in errors


def test_the_drn_of_a_checkout_and_the_vindlu_of_a_later_release_stay(ended):
    code, _, errors = ended['later']
    assert code == 0, errors


def test_missing_mmcv_is_said_plainly(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    requirements = ROOT / 'requirements/runtime.txt'
    needed = re.search(r'^mmcv-lite\S+', requirements.read_text(), re.MULTILINE)[0]
    with pytest.raises(ImportError, match=re.escape(f'pip install "{needed}"')):
        compat.require_mmcv()
