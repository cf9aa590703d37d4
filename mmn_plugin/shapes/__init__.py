"""Shapes: a corpus of rendered videos with sentences, made on the spot from a seed."""

from .corpus import CorpusError, SceneRenderer, ShapesCorpus
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
    build_vocabulary,
    mask_sentence,
    say,
)
from .tubes import ShapesTracker, ShapesTubes

__all__ = [
    'ACTIONS',
    'BLANK_SENTENCE',
    'COLORS',
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
    'build_vocabulary',
    'held_out_combinations',
    'mask_sentence',
    'say',
]
