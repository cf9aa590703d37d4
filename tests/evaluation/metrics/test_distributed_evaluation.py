"""Every sentence counts once, whatever the number of processes."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SENTENCES = 4001
WORKER = Path(__file__).with_name('evaluate_worker.py')


def evaluate(folder, annotations, world_size, order):
    """Run the worker in ``world_size`` processes; figures and predictions of the first."""
    folder.mkdir()
    path = os.pathsep.join([str(WORKER.parents[1]), str(WORKER.parents[3])])
    environment = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': path}
    command = [sys.executable, str(WORKER), str(annotations), order, str(world_size)]
    workers = [subprocess.Popen([*command, str(rank)], cwd=folder, env=environment,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
               for rank in range(world_size)]
    for worker in workers:
        output, _ = worker.communicate(timeout=180)
        assert worker.returncode == 0, output
    figures = [json.loads((folder / f'figures_{rank}.json').read_text())
               for rank in range(world_size)]
    assert all(other == figures[0] for other in figures)
    return figures[0], (folder / 'predictions.json').read_bytes()


@pytest.fixture(scope='module')
def single(shared, tmp_path_factory):
    return evaluate(tmp_path_factory.mktemp('single') / 'run',
                    shared / 'data/annotations/tacos/test.json', 1, 'default')


def test_one_process_finds_every_sentence(single):
    figures, predictions = single
    assert figures['grounding/num_sentences'] == SENTENCES
    assert figures['grounding/num_videos'] == 25
    assert 0 < figures['grounding/R1@0.5'] < 100
    videos = json.loads(predictions)['videos'].values()
    assert sum(len(video['sentences']) for video in videos) == SENTENCES


@pytest.mark.parametrize(('world_size', 'order'),
                         [(2, 'default'), (3, 'default'), (3, 'repeated_first')])
def test_more_processes_find_the_same(shared, tmp_path, single, world_size, order):
    found = evaluate(tmp_path / 'run', shared / 'data/annotations/tacos/test.json', world_size,
                     order)
    assert found == single
