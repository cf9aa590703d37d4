"""Temporal grounding for MMAction2: when does this sentence happen in this video?

Importing the package makes the pinned releases work together (:mod:`mmn_plugin.compat`) and
registers every component in MMAction2's registries. The command ``mmn`` alone imports on demand.
"""

import os
from functools import cache

from .version import __version__

__all__ = [
    '__version__',
    'apis',
    'datasets',
    'engine',
    'evaluation',
    'features',
    'models',
    'register_components',
    'structures',
    'visualization',
]


@cache
def register_components() -> None:
    """Apply :mod:`mmn_plugin.compat` and import all that registers components, once."""
    from . import compat

    compat.apply()
    from . import (  # noqa: F401
        apis,
        datasets,
        engine,
        evaluation,
        features,
        models,
        structures,
        visualization,
    )


if os.environ.pop('MMN_ON_DEMAND', None) is None:
    register_components()
