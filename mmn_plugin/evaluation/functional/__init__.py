"""The arithmetic of evaluation: pure functions on tensors."""

from .chance import chance_level
from .greedy_check import GreedyCheck, is_greedy_ranking
from .recall import mean_iou, published_recall_table, ranked_iou, recall, recall_of_iou
from .tube_scores import check_thresholds, tube_bounds, tube_figures

__all__ = [
    'GreedyCheck',
    'chance_level',
    'check_thresholds',
    'is_greedy_ranking',
    'mean_iou',
    'published_recall_table',
    'ranked_iou',
    'recall',
    'recall_of_iou',
    'tube_bounds',
    'tube_figures',
]
