"""Two processes with common negatives train as one process with both their batches."""

import re

import pytest
import torch
from helpers.processes import in_ranks
from helpers.two_rank_training import CASES, case, train

EXACT = [name for name in CASES if name not in ('local', 'nothing occurs')]


def train_all(rank, folder):
    torch.save({name: train(case(name), rank) for name in CASES}, folder / f'rank{rank}.pth')


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """What each of two processes saw in every case."""
    folder = tmp_path_factory.mktemp('ranks')
    in_ranks(folder, train_all, folder)
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


def test_a_step_in_which_nothing_occurs_anywhere_changes_nothing(ranks):
    for steps in (*(rank['nothing occurs'] for rank in ranks), train(case('nothing occurs'), None)):
        for losses in steps['losses']:
            assert losses == dict(loss_vid=0.0, loss_sent=0.0, loss_iou=0.0)
        for gradients in steps['gradients']:
            assert not any(value.any() for value in gradients.values())


def test_local_negatives_do_not(ranks):
    gradients, wanted = ranks[0]['local']['gradients'][0], train(case('local'), None)
    assert largest_difference(gradients, wanted['gradients'][0]) > 1e-3
    assert ranks[0]['local']['losses'] != ranks[1]['local']['losses']


def test_clipping_was_at_work(ranks):
    for name in ('clipping', 'accumulation', 'float32'):
        for gradients in ranks[0][name]['gradients']:
            norm = torch.stack([value.norm() for value in gradients.values()]).norm()
            assert norm.item() == pytest.approx(0.05, rel=1e-4)
