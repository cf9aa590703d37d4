"""The arithmetic of evaluation: pure functions on tensors."""
from .chance import chance_level
from .greedy_check import GreedyCheck, is_greedy_ranking
from .nms import nms, take_moments
from .recall import mean_iou, published_recall_table, ranked_iou, recall, recall_of_iou
from .scores import moment_scores

__all__ = [
    'GreedyCheck', 'chance_level', 'is_greedy_ranking', 'mean_iou', 'moment_scores', 'nms',
    'published_recall_table', 'ranked_iou', 'recall', 'recall_of_iou', 'take_moments'
]
