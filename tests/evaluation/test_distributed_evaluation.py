"""Every sentence counts once, whatever the number of processes."""

import json
from pathlib import Path

import pytest

SENTENCES = 4001
WORKER = Path(__file__).with_name('evaluate_worker.py')


def evaluate(zygote, folder, annotations, world_size, order):
    """Run the worker in ``world_size`` processes; figures and predictions of the first."""
    folder.mkdir()
    codes, output = zygote.run(
        annotations,
        order,
        ranks=world_size,
        tool=WORKER,
        launcher=False,
        cwd=folder,
        output=folder / 'output.txt',
    )
    assert codes == [0] * world_size, output[-6000:]
    figures = [
        json.loads((folder / f'figures_{rank}.json').read_text()) for rank in range(world_size)
    ]
    assert all(other == figures[0] for other in figures)
    return figures[0], (folder / 'predictions.json').read_bytes()


@pytest.fixture(scope='module')
def single(shared, zygote, tmp_path_factory):
    return evaluate(
        zygote,
        tmp_path_factory.mktemp('single') / 'run',
        shared / 'data/annotations/tacos/test.json',
        1,
        'default',
    )


def test_one_process_finds_every_sentence(single):
    figures, predictions = single
    assert figures['grounding/num_sentences'] == SENTENCES
    assert figures['grounding/num_videos'] == 25
    assert 0 < figures['grounding/R1@0.5'] < 100
    videos = json.loads(predictions)['videos'].values()
    assert sum(len(video['sentences']) for video in videos) == SENTENCES


@pytest.mark.parametrize(
    ('world_size', 'order'), [(2, 'default'), (3, 'default'), (3, 'repeated_first')]
)
def test_more_processes_find_the_same(shared, zygote, tmp_path, single, world_size, order):
    found = evaluate(
        zygote, tmp_path / 'run', shared / 'data/annotations/tacos/test.json', world_size, order
    )
    assert found == single
