"""A method of its own for mmn_plugin: importing the package registers its parts."""

from . import dataset, head, localizer, loss

__all__ = ['dataset', 'head', 'localizer', 'loss']
