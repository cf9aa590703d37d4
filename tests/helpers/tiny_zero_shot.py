"""A zero-shot model with a stub tower, videos in its space, and a config of it."""

import torch
import torch.nn.functional as F
from mmaction.registry import MODELS

from .stub_tower import word_vectors
from .tiny_corpus import FEATURE_SIZE, NUM_SEGMENTS

WHO, WHAT = ('cat', 'dog', 'cow', 'hen', 'owl'), ('sings', 'jumps', 'eats', 'runs')
UNRELATED = [f'{who} {what}' for who in WHO for what in WHAT]
SCORES = (
    dict(type='mean'),
    dict(type='contrast', weight=0.5),
    dict(type='rise', rise=0.5, steadiness=1.0, mean=0.25),
)


def zero_shot_settings(score=SCORES[0], neck=None, size=FEATURE_SIZE, **head):
    """The ``model`` of a config."""
    head = dict(score=score, nms_threshold=0.5, unrelated=UNRELATED) | head
    return dict(
        type='ZeroShotGrounding',
        grid=dict(num_clips=8, pooling_counts=[7]),
        tower=dict(type='StubTower', size=size),
        neck=dict(type='TowerPool', **neck or {}),
        head=dict(type='ZeroShotHead', **head),
    )


def build_zero_shot(*args, **settings):
    """The model."""
    return MODELS.build(zero_shot_settings(*args, **settings)).eval()


def video_showing(sentence, first, last, rows=NUM_SEGMENTS, size=FEATURE_SIZE, seed=0):
    """Features (rows, size): of a sentence's words from one row to another, else of noise."""
    noise = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))
    shown = F.normalize(word_vectors(sentence.split(), size).sum(0), dim=0)
    noise[first:last] = 3 * shown + 0.3 * noise[first:last]
    return F.normalize(noise, dim=-1)
