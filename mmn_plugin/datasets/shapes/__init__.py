"""Shapes: a corpus of rendered videos with sentences, made on the spot from a seed."""

from .ablation import BLANK_SENTENCE, mask_annotations, mask_sentence
from .attributes import ACTIONS, COLOURS, SHAPES, held_out_combinations
from .corpus_error import CorpusError
from .event import Event
from .scene import Scene
from .scene_object import SceneObject
from .scene_renderer import SceneRenderer
from .scene_sampler import SceneSampler
from .sentence_grammar import SentenceGrammar
from .shapes_corpus import ShapesCorpus
from .vocabulary import build_vocabulary

__all__ = [
    'ACTIONS',
    'BLANK_SENTENCE',
    'COLOURS',
    'SHAPES',
    'CorpusError',
    'Event',
    'Scene',
    'SceneObject',
    'SceneRenderer',
    'SceneSampler',
    'SentenceGrammar',
    'ShapesCorpus',
    'build_vocabulary',
    'held_out_combinations',
    'mask_annotations',
    'mask_sentence',
]
