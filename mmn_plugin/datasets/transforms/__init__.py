"""From an annotation to the inputs of the model."""
from .load_clip_features import LoadClipFeatures
from .pack_grounding_inputs import PackGroundingInputs
from .pool_clip_features import PoolClipFeatures

__all__ = ['LoadClipFeatures', 'PackGroundingInputs', 'PoolClipFeatures']
