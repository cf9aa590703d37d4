"""TensorBoard and Weights & Biases, switched on by a config as the README says."""
import json
import re
import sys
from pathlib import Path

import pytest
from helpers.run_tool import ROOT, run_tool
from helpers.tiny_corpus import write_config, write_corpus

FAKES = ROOT / 'tests' / 'helpers' / 'fake_wandb'
README = (ROOT / 'README.md').read_text()


def readme_visualizer(backend: str) -> str:
    """The README's lines of a config that switch this back end on."""
    blocks = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
    block, = (block for block in blocks if backend in block)
    return block


@pytest.fixture
def train(tmp_path):
    """Train a tiny model with these lines at the end of its config."""
    corpus = write_corpus(tmp_path / 'corpus', train=4, test=3)

    def run(extra: str, *options) -> tuple[int, str]:
        # MMEngine keeps visualisers by the name of the run, which comes from the config's
        config = write_config(tmp_path / f'{tmp_path.name}.py', corpus, epochs=2, extra=extra)
        return run_tool('train.py', config, '--work-dir', tmp_path / 'work', *options)

    return run


def test_losses_and_metrics_reach_wandb(train, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.delitem(sys.modules, 'wandb', raising=False)
    monkeypatch.setenv('WANDB_RECORD', str(tmp_path / 'record.jsonl'))
    code, output = train(
        readme_visualizer('WandbVisBackend'), '--cfg-options',
        'visualizer.vis_backends.1.define_metric_cfg.grounding/R1_mean=max')
    sys.modules.pop('wandb', None)
    assert code == 0, output[-3000:]
    calls = [json.loads(line) for line in (tmp_path / 'record.jsonl').read_text().splitlines()]
    by_name = {call['call']: call for call in calls}
    assert calls[0]['kwargs']['project'] == 'grounding'
    assert Path(calls[0]['kwargs']['dir']).is_relative_to(tmp_path / 'work')
    assert by_name['define_metric']['name'] == 'grounding/R1_mean'
    assert by_name['config']['content']['model']['type'] == 'MMN'
    assert calls[-1]['call'] == 'join'
    logged = [call['data'] for call in calls if call['call'] == 'log']
    losses = [data['loss'] for data in logged if 'loss' in data]
    assert len(losses) == 2  # one line per epoch of two iterations
    assert all('loss_iou' in data for data in logged if 'loss' in data)
    metrics = [data['grounding/R1@0.5'] for data in logged if 'grounding/R1@0.5' in data]
    assert len(metrics) == 2
    # the local log, which plot_logs.py reads, says the same
    scalars = next((tmp_path / 'work').glob('*/vis_data/scalars.json')).read_text().splitlines()
    local = [json.loads(line) for line in scalars]
    assert [line['loss'] for line in local if 'loss' in line] == losses


def test_losses_and_metrics_reach_tensorboard(train, tmp_path):
    accumulator = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator')
    code, output = train(readme_visualizer('TensorboardVisBackend'))
    assert code == 0, output[-3000:]
    folder = next((tmp_path / 'work').glob('*/vis_data'))
    events = accumulator.EventAccumulator(str(folder)).Reload()
    assert len(events.Scalars('loss')) == 2
    assert [event.step for event in events.Scalars('grounding/R1@0.5')] == [1, 2]


@pytest.mark.parametrize(('backend', 'package'), [
    ('WandbVisBackend', 'wandb'), ('TensorboardVisBackend', 'tensorboard')])
def test_an_absent_package_is_one_line(train, monkeypatch, backend, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, 'torch.utils.tensorboard', raising=False)
    code, output = train(readme_visualizer(backend))
    assert code == 1
    assert 'Traceback' not in output
    last = output.rstrip().splitlines()[-1]
    assert last.startswith(f'Error: visualizer.vis_backends of the config holds {backend}')
    assert f'`pip install {package}`' in last
