"""Two processes with common negatives train as one process with both their batches."""

import re

import pytest
import torch
from helpers.run_tool import ROOT
from helpers.tiny_corpus import write_config, write_corpus
from helpers.two_rank_training import CASES, case, train
from helpers.work_folder import logged_scalars

EXACT = [name for name in CASES if name != 'local']


@pytest.fixture(scope='module')
def ranks(tmp_path_factory, zygote):
    """What each of two processes saw in every case."""
    folder = tmp_path_factory.mktemp('ranks')
    codes, output = zygote.run(
        folder,
        tool=ROOT / 'tests/helpers/two_rank_training.py',
        launcher=False,
        output=folder / 'output.txt',
    )
    assert codes == [0, 0], output[-6000:]
    return [torch.load(folder / f'rank{rank}.pth', weights_only=True) for rank in (0, 1)]


FLOOR = 1e-6  # the least gradient that is no rounding is 2e-6


def largest_difference(ours, reference):
    """Largest over all parameters, each relative to its own largest value.

    Where that is less than `FLOOR` of the largest value of any parameter, the latter product stands
    in for it: a gradient that is zero but for rounding (of convolutions' biases before a trained
    BatchNorm, of the biases of the language model's keys) agrees with nothing.
    """
    assert ours.keys() == reference.keys()
    largest = {name: value.abs().max() for name, value in reference.items()}
    floor = FLOOR * max(largest.values())
    return max(
        (ours[name] - value).abs().max() / max(largest[name], floor)
        for name, value in reference.items()
    )


def test_a_small_parameter_counts_as_a_large_one():
    reference = dict(large=torch.tensor([1.0, 100.0]), small=torch.tensor([1e-3, 0.0]))
    ours = dict(large=torch.tensor([1.0, 100.0]), small=torch.tensor([1e-3, 1e-6]))
    assert largest_difference(ours, reference) == pytest.approx(1e-3)


@pytest.mark.parametrize('name', EXACT)
def test_two_processes_have_the_losses_and_gradients_of_one(ranks, name):
    bound = 1e-5 if name == 'float32' else 1e-9
    expected = train(case(name), None)
    for rank in ranks:
        for losses, wanted in zip(rank[name]['losses'], expected['losses'], strict=True):
            assert losses == pytest.approx(wanted, rel=bound)
        for gradients, wanted in zip(rank[name]['gradients'], expected['gradients'], strict=True):
            assert largest_difference(gradients, wanted) < bound
            floor = FLOOR * max(value.abs().max() for value in wanted.values())
            for parameter, value in wanted.items():
                zero = parameter.endswith('k_lin.bias') or (
                    name.startswith('trained') and re.search(r'convs\.\d\.bias', parameter)
                )
                assert zero or value.abs().max() > floor
        assert largest_difference(rank[name]['weights'], expected['weights']) < bound


@pytest.mark.parametrize('name', [name for name in CASES if name.startswith('trained')])
def test_running_statistics_are_those_of_all_ranks(ranks, name):
    expected = train(case(name), None)['statistics']
    for rank in ranks:
        assert largest_difference(rank[name]['statistics'], expected) < 1e-10
    assert all(value.min() < value.max() for value in expected.values())  # no longer 0 or 1


def test_local_negatives_do_not(ranks):
    gradients, wanted = ranks[0]['local']['gradients'][0], train(case('local'), None)
    assert largest_difference(gradients, wanted['gradients'][0]) > 1e-3
    assert ranks[0]['local']['losses'] != ranks[1]['local']['losses']


def test_clipping_was_at_work(ranks):
    for name in ('clipping', 'accumulation', 'float32'):
        for gradients in ranks[0][name]['gradients']:
            norm = torch.stack([value.norm() for value in gradients.values()]).norm()
            assert norm.item() == pytest.approx(0.05, rel=1e-4)


RUN = """
custom_imports = dict(imports=['mmn_plugin', 'helpers.rank_dump'])
custom_hooks = [dict(type='RankDumpHook')]
default_hooks = dict(freeze_language_model=dict(through_epoch=1))
model['head'] = dict(negatives=dict(scope='global', queue_size=3, exclude_same_text=True))
"""


def test_a_mixed_precision_run_with_common_negatives_keeps_its_ranks_together(tmp_path, zygote):
    corpus = write_corpus(tmp_path / 'corpus', train=7)
    config = write_config(tmp_path / 'tiny.py', corpus, extra=RUN)
    codes, output = zygote.run(
        config, '--work-dir', tmp_path, '--amp', output=tmp_path / 'output.txt'
    )
    assert codes == [0, 0], output[-6000:]
    for epoch in (1, 2):
        first, second = (
            torch.load(tmp_path / f'rank{rank}_epoch{epoch}.pth', weights_only=True)
            for rank in (0, 1)
        )
        assert all(torch.equal(second[name], value) for name, value in first.items())
    (common,) = tmp_path.glob('run_state/epoch_2.pth-*/common.pth')
    stored = torch.load(common, weights_only=True)
    assert len(stored['model.head.negatives']['video_ids']) == 3
    losses = [entry['loss'] for entry in logged_scalars(tmp_path) if 'loss' in entry]
    assert losses
    assert min(losses) > 0
