"""From an annotation to the inputs of the model."""
from .cached_clip_features import CachedClipFeatures
from .load_clip_features import LoadClipFeatures
from .pack_grounding_inputs import PackGroundingInputs
from .pool_clip_features import PoolClipFeatures

__all__ = ['CachedClipFeatures', 'LoadClipFeatures', 'PackGroundingInputs', 'PoolClipFeatures']
