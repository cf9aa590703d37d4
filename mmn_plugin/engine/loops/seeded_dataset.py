"""Samples whose random numbers do not depend on who loads them."""

import random

import numpy as np
import torch
from torch.utils.data import Dataset

from ..random_state import isolated_random_state


class SeededDataset(Dataset):
    """Load each sample with random numbers of its own.

    A worker's generators run on from sample to sample and from epoch to epoch, so a resumed run,
    whose workers are new, would draw others. Here a sample's numbers follow from the seed that
    comes with its index alone, with any number of workers, and loading in the main process
    draws nothing from the model's generators.

    Args:
        dataset (Dataset): Map-style dataset.
    """

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: tuple[int, tuple[int, ...]]):
        """Load sample ``item[0]`` under the seed ``item[1]`` (non-negative integers)."""
        index, key = item
        first, second = np.random.SeedSequence(key).generate_state(2)
        with isolated_random_state():
            random.seed(int(first))
            np.random.seed(first)
            torch.default_generator.manual_seed(int(second))
            return self.dataset[index]
