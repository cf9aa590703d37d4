"""TensorBoard and Weights & Biases, switched on by a config as docs/train.md says."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
from helpers.run_tool import ROOT, output_of, page_lines
from helpers.tiny_corpus import write_config, write_corpus
from helpers.wandb_run import records, values


@pytest.mark.skipif(find_spec('wandb') is None, reason='wandb is not installed')
def test_losses_metrics_and_pictures_reach_the_real_wandb(tmp_path):
    """Two processes, offline: what `wandb sync` would send is on the disk when they end."""
    corpus = write_corpus(tmp_path / 'corpus', train=4, test=3)
    extra = page_lines('WandbVisBackend') + page_lines('GroundingVisualizationHook').replace(
        ", video_dir='data/shapes/videos'", ''
    )
    config = write_config(tmp_path / 'tiny.py', corpus, extra=extra)
    # Processes of their own: wandb's folder for pictures belongs to the process that imports it,
    # and would be gone with the first of several that were forked from that one.
    launched = subprocess.run(
        [
            'bash',
            ROOT / 'tools' / 'dist_train.sh',
            config,
            '2',
            '--work-dir',
            tmp_path / 'work',
            '--cfg-options',
            'visualizer.vis_backends.1.define_metric_cfg.grounding/R1_mean=max',
        ],
        env=dict(os.environ, PYTHON=sys.executable, WANDB_MODE='offline', WANDB_SILENT='true'),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert launched.returncode == 0, launched.stdout[-3000:]
    [run] = (tmp_path / 'work').glob('*/vis_data/wandb/offline-run-*')  # of rank 0 alone
    found = records(run)
    assert [record.exit.exit_code for record in found if record.HasField('exit')] == [0]
    assert {record.run.project for record in found if record.HasField('run')} == {'grounding'}
    [metric] = [record.metric for record in found if record.HasField('metric')]
    assert (metric.name, metric.summary.max) == ('grounding/R1_mean', True)
    config = {}
    for record in found:
        config |= values(record.config.update)
    assert config['model']['type'] == 'MMN'
    logged = [values(record.history.item) for record in found if record.HasField('history')]
    losses = [line['loss'] for line in logged if 'loss' in line]
    assert len(losses) == 2  # one line per epoch
    assert all('loss_iou' in line for line in logged if 'loss' in line)
    # the local log, which plot_logs.py reads, says the same
    scalars = next((tmp_path / 'work').glob('*/vis_data/scalars.json')).read_text().splitlines()
    local = [json.loads(line) for line in scalars]
    assert losses == [line['loss'] for line in local if 'loss' in line]
    for metric in ('grounding/R1@0.5', 'grounding/mIoU'):
        assert (
            [line[metric] for line in logged if metric in line]
            == [line[metric] for line in local if metric in line]
            != []
        )
    key = 'val_test_0_timeline/path'
    pictures = [run / 'files' / line[key] for line in logged if key in line]
    assert [picture.is_file() for picture in pictures] == [True, True]  # one per epoch


@pytest.mark.parametrize(
    ('backend', 'package'), [('WandbVisBackend', 'wandb'), ('TensorboardVisBackend', 'tensorboard')]
)
def test_an_absent_package_is_one_line(tmp_path, monkeypatch, backend, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, 'torch.utils.tensorboard', raising=False)
    corpus = write_corpus(tmp_path / 'corpus', train=4, test=3)
    # MMEngine keeps visualizers by the name of the run, which comes from the config's
    config = write_config(tmp_path / f'{tmp_path.name}.py', corpus, extra=page_lines(backend))
    output = output_of('train.py', config, '--work-dir', tmp_path / 'work', code=1)
    last = output.rstrip().splitlines()[-1]
    assert re.match(f'Error: .*Please run "pip install .*{package}', last)
