"""From an annotation to the inputs of the model."""

from .cached_clip_features import CachedClipFeatures
from .load_clip_features import LoadClipFeatures
from .load_tubes import LoadTubes
from .pack_grounding_inputs import PackGroundingInputs
from .pack_tube_inputs import PackTubeInputs
from .pool_clip_features import PoolClipFeatures
from .pool_tube_features import PoolTubeFeatures

__all__ = [
    'CachedClipFeatures',
    'LoadClipFeatures',
    'LoadTubes',
    'PackGroundingInputs',
    'PackTubeInputs',
    'PoolClipFeatures',
    'PoolTubeFeatures',
]
