"""Temporal grounding for MMAction2: when does this sentence happen in this video?

Importing the package makes the pinned releases work together (:mod:`mmn_plugin.compat`) and
registers every component in MMAction2's registries.
"""

from . import compat

compat.apply()

from . import apis, datasets, engine, evaluation, features, models, structures, visualization  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = [
    '__version__',
    'apis',
    'datasets',
    'engine',
    'evaluation',
    'features',
    'models',
    'structures',
    'visualization',
]
