"""Models: from a sample to losses or scored moments."""
from .backbones import ClipEncoder
from .data_preprocessors import GroundingDataPreprocessor, TubeDataPreprocessor
from .heads import MutualMatchingHead, TubeMatchingHead
from .localizers import MMN
from .losses import IoURegressionLoss, MutualMatchingLoss, TubeMatchingLoss
from .necks import MomentMapConv, MomentMapNeck, MomentMapPool
from .text_encoders import SentenceEncoder
from .tokenizer import SentenceTokenizer

__all__ = [
    'MMN', 'ClipEncoder', 'GroundingDataPreprocessor', 'IoURegressionLoss', 'MomentMapConv',
    'MomentMapNeck', 'MomentMapPool', 'MutualMatchingHead', 'MutualMatchingLoss',
    'SentenceEncoder', 'SentenceTokenizer', 'TubeDataPreprocessor', 'TubeMatchingHead',
    'TubeMatchingLoss',
]
