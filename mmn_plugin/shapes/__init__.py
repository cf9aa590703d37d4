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
from .windows import ABSENCES, OCCURRENCES, WindowsSampler, WindowsScene

__all__ = [
    'ABSENCES',
    'ACTIONS',
    'BLANK_SENTENCE',
    'COLORS',
    'OCCURRENCES',
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
    'WindowsSampler',
    'WindowsScene',
    'build_vocabulary',
    'held_out_combinations',
    'mask_sentence',
    'read_events',
    'say',
    'say_opposites',
]
