"""Shapes: a corpus of rendered videos with sentences, made on the spot from a seed."""

from .corpus import CorpusError, SceneRenderer, ShapesCorpus, read_events
from .features import GridFeatureExtractor, TubeFeatureExtractor
from .scene import (
    ACTIONS,
    COLORS,
    SHAPES,
    Event,
    Scene,
    SceneObject,
    SceneSampler,
    held_out_combinations,
)
from .sentences import (
    BLANK_SENTENCE,
    OPPOSITES,
    build_vocabulary,
    mask_sentence,
    say,
    say_opposites,
)
from .truth import WholeTruth
from .tubes import ShapesTracker, ShapesTubes

__all__ = [
    'ACTIONS',
    'BLANK_SENTENCE',
    'COLORS',
    'OPPOSITES',
    'SHAPES',
    'CorpusError',
    'Event',
    'GridFeatureExtractor',
    'Scene',
    'SceneObject',
    'SceneRenderer',
    'SceneSampler',
    'ShapesCorpus',
    'ShapesTracker',
    'ShapesTubes',
    'TubeFeatureExtractor',
    'WholeTruth',
    'build_vocabulary',
    'held_out_combinations',
    'mask_sentence',
    'read_events',
    'say',
    'say_opposites',
]
