"""A zero-shot model with a stub tower, videos in its space, and a config of it."""

import h5py
import torch
import torch.nn.functional as F
from mmaction.registry import MODELS

from .stub_tower import StubTower, word_vectors
from .tiny_corpus import FEATURE_SIZE, NUM_SEGMENTS, PIPELINE, write_settings

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


def write_zero_shot_config(path, corpus, score=SCORES[1], extra=''):
    """Write a config of the model on the tiny corpus."""
    dataset = dict(
        data_root=f'{corpus}/',
        data_prefix=dict(features='features.h5'),
        ann_file='test.json',
        pipeline=PIPELINE,
    )
    loader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
    bases = ['datasets/charades_zero_shot.py', 'models/zero_shot.py', 'default_runtime.py']
    settings = dict(
        _base_=[f'mmn_plugin::_base_/{name}' for name in bases],
        custom_imports=dict(imports=['mmn_plugin', 'helpers.stub_tower']),
        model=dict(zero_shot_settings(score), _delete_=True),
        val_dataloader=loader,
        test_dataloader=loader,
        long_video=dict(window=12.0, longest=18.0),
    )
    return write_settings(path, settings, extra)


def mark_features(corpus, **changes):
    """Write into a corpus' feature file that the stub tower made it."""
    with h5py.File(corpus / 'features.h5', 'a') as file:
        for entry in (file, *file.values()):
            attributes = StubTower(**changes).fingerprint
            del attributes['feature_size']
            entry.attrs.update(attributes)
