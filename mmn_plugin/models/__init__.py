"""Models: from a sample to losses or scored moments."""

from .backbones import ClipEncoder
from .data_preprocessors import GroundingDataPreprocessor, TubeDataPreprocessor
from .heads import MutualMatchingHead, ScoreCurveHead, TubeMatchingHead
from .localizers import MMN, MSCL
from .losses import (
    IoURegressionLoss,
    MutualMatchingLoss,
    SelfContrastLoss,
    TubeMatchingLoss,
    VideoMatchingLoss,
)
from .necks import FrameNeck, MomentMapConv, MomentMapNeck, MomentMapPool
from .text_encoders import SentenceEncoder
from .tokenizer import SentenceTokenizer

__all__ = [
    'MMN',
    'MSCL',
    'ClipEncoder',
    'FrameNeck',
    'GroundingDataPreprocessor',
    'IoURegressionLoss',
    'MomentMapConv',
    'MomentMapNeck',
    'MomentMapPool',
    'MutualMatchingHead',
    'MutualMatchingLoss',
    'ScoreCurveHead',
    'SelfContrastLoss',
    'SentenceEncoder',
    'SentenceTokenizer',
    'TubeDataPreprocessor',
    'TubeMatchingHead',
    'TubeMatchingLoss',
    'VideoMatchingLoss',
]
