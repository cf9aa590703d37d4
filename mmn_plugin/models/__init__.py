"""Models: from a sample to losses or scored moments."""

from .clip_encoder import ClipEncoder, ClipMeans
from .data_preprocessor import GroundingDataPreprocessor, TubeDataPreprocessor
from .heads import (
    BaseHead,
    MutualMatchingHead,
    ScoreCurveHead,
    TubeMatchingHead,
    ZeroShotHead,
)
from .localizers import MMN, MSCL, BaseLocalizer, ZeroShotGrounding
from .losses import (
    IoURegressionLoss,
    MutualMatchingLoss,
    SelfContrastLoss,
    TubeMatchingLoss,
    VideoMatchingLoss,
)
from .necks import FrameNeck, MomentMapConv, MomentMapNeck, MomentMapPool, TowerPool
from .negatives import Candidates, Negatives, NegativeSource
from .ranking import (
    expected_iou,
    moment_scores,
    nms,
    rank,
    relative_threshold,
    score_curve,
    score_runs,
    score_stretches,
    take_moments,
    with_first,
)
from .text_encoders import SentenceEncoder, SentenceTokenizer

__all__ = [
    'MMN',
    'MSCL',
    'BaseHead',
    'BaseLocalizer',
    'Candidates',
    'ClipEncoder',
    'ClipMeans',
    'FrameNeck',
    'GroundingDataPreprocessor',
    'IoURegressionLoss',
    'MomentMapConv',
    'MomentMapNeck',
    'MomentMapPool',
    'MutualMatchingHead',
    'MutualMatchingLoss',
    'NegativeSource',
    'Negatives',
    'ScoreCurveHead',
    'SelfContrastLoss',
    'SentenceEncoder',
    'SentenceTokenizer',
    'TowerPool',
    'TubeDataPreprocessor',
    'TubeMatchingHead',
    'TubeMatchingLoss',
    'VideoMatchingLoss',
    'ZeroShotGrounding',
    'ZeroShotHead',
    'expected_iou',
    'moment_scores',
    'nms',
    'rank',
    'relative_threshold',
    'score_curve',
    'score_runs',
    'score_stretches',
    'take_moments',
    'with_first',
]
