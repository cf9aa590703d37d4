"""Datasets inside others."""

from collections.abc import Iterator


def single_datasets(dataset) -> Iterator:
    """The datasets inside wrappers such as RepeatDataset and ConcatDataset."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner[0] is None:
        yield dataset
        return
    for part in inner:
        yield from single_datasets(part)
