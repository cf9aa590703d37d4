"""A corpus of a few videos, and a config of a few channels that trains on it in a second."""

import json
from pathlib import Path

import h5py
import numpy as np

FEATURE_SIZE = 6
NUM_SEGMENTS = 16
PIPELINE = [
    dict(type='LoadClipFeatures'),
    dict(type='PoolClipFeatures', num_segments=NUM_SEGMENTS),
    dict(type='PackGroundingInputs'),
]
WORDS = ('a', 'person', 'opens', 'closes', 'the', 'door', 'box', 'red', 'blue', 'slowly', 'then')
VOCABULARY = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *WORDS)


def write_corpus(folder: Path, train: int = 8, test: int = 5, seed: int = 0) -> Path:
    """Write train.json, test.json, features.h5 and vocab.txt; returns the folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / 'features.h5', 'w') as file:
        for split, count in (('train', train), ('test', test)):
            videos = {f'{split}_{i}': _video(rng) for i in range(count)}
            (folder / f'{split}.json').write_text(json.dumps(videos))
            for name in videos:
                rows = int(rng.integers(5, 40))
                file[name] = rng.standard_normal((rows, FEATURE_SIZE)).astype(np.float32)
    (folder / 'vocab.txt').write_text('\n'.join(VOCABULARY) + '\n')
    return folder


def _video(rng) -> dict:
    duration = float(rng.uniform(10, 40))
    count = int(rng.integers(1, 4))
    starts = rng.uniform(0, duration * 0.7, count)
    lengths = rng.uniform(1, duration * 0.3, count)
    return dict(
        duration=duration,
        timestamps=np.stack([starts, starts + lengths], axis=1).round(2).tolist(),
        sentences=[' '.join(rng.choice(WORDS, 5)) + '.' for _ in range(count)],
    )


def tiny_model(vocab, dropout: float = 0.1) -> dict:
    """Settings that make a published config's model small."""
    return dict(
        grid=dict(num_clips=8, pooling_counts=[7]),
        data_preprocessor=dict(
            tokenizer=dict(_delete_=True, type='SentenceTokenizer', vocab=str(vocab))
        ),
        backbone=dict(in_channels=FEATURE_SIZE, out_channels=8, kernel_size=2, stride=2),
        neck=dict(channels=8, embed_channels=8, kernel_size=3, num_layers=2),
        text_encoder=dict(
            _delete_=True,
            type='SentenceEncoder',
            embed_channels=8,
            config=dict(
                model_type='distilbert',
                vocab_size=32,
                dim=16,
                n_heads=2,
                n_layers=1,
                hidden_dim=16,
                max_position_embeddings=32,
                dropout=dropout,
                attention_dropout=dropout,
            ),
        ),
    )


def write_config(
    path: Path,
    corpus: Path,
    base: str = 'mmn_plugin::mmn_charades.py',
    epochs: int = 2,
    dropout: float = 0.1,
    extra: str = '',
) -> Path:
    """Write a config that inherits `base` and trains a tiny model on `corpus`."""
    loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
    dataset = dict(
        data_root=f'{corpus}/',
        data_prefix=dict(features='features.h5'),
        feature_key=None,
        pipeline=PIPELINE,
    )
    settings = dict(
        model=tiny_model(corpus / 'vocab.txt', dropout),
        **{
            f'{split}_dataloader': dict(loader, dataset=dict(dataset, ann_file=f'{file}.json'))
            for split, file in (('train', 'train'), ('val', 'test'), ('test', 'test'))
        },
        train_cfg=dict(max_epochs=epochs),
        default_hooks=dict(checkpoint=dict(save_best='grounding/R1@0.5')),
        randomness=dict(seed=0),
    )
    return write_settings(path, dict(_base_=base, **settings), extra)


def write_settings(path: Path, settings: dict, extra: str = '') -> Path:
    """Write a config of these settings, with more lines at its end."""
    lines = [f'{key} = {value!r}\n' for key, value in settings.items()]
    path.write_text(''.join(lines) + extra)
    return path
