"""A sample's random numbers depend on its place alone."""

import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from torch.utils.data import BatchSampler, DataLoader, Dataset

from mmn_plugin.engine.resume import ResumableBatchSampler, SeededDataset


class Noise(Dataset):
    def __len__(self):
        return 11

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), torch.rand(1).item()


def loader_of(first=0, epoch=0, workers=0, seed=5):
    batches = ResumableBatchSampler(
        BatchSampler(DefaultSampler(Noise(), seed=seed), 2, False), rank=0
    )
    batches.first, batches.epoch, batches.seed = first, epoch, seed
    batches.batch_sampler.sampler.set_epoch(epoch)
    return DataLoader(
        SeededDataset(Noise()),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=list,
        persistent_workers=workers > 0,
    )


@pytest.mark.parametrize('workers', [0, 1, 2])
def test_a_resumed_epoch_yields_what_was_left_of_it(workers):
    whole = list(loader_of())
    assert sorted(sample[0] for batch in whole for sample in batch) == list(range(11))
    for first in (0, 2, 5, 6):
        assert list(loader_of(first, workers=workers)) == whole[first:]


def test_epochs_and_seeds_differ():
    drawn = [
        {sample[1:] for batch in loader for sample in batch}
        for loader in (loader_of(), loader_of(epoch=1), loader_of(seed=6))
    ]
    assert len(set.union(*drawn)) == 33
    assert len({value for sample in drawn[0] for value in sample}) == 33


def test_loading_draws_nothing_from_the_generators_of_training():
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    batch = SeededDataset(Noise())[3, (0, 0, 0, 0, 0)]
    assert batch[0] == 3
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
