"""A tiny weakly-supervised model, and a config of it on the tiny corpus."""

from pathlib import Path

from .tiny_corpus import FEATURE_SIZE, NUM_SEGMENTS, tiny_model, write_config


def tiny_weak_model(vocab, dropout: float = 0.0) -> dict:
    """Settings that make a published config's model small."""
    base = tiny_model(vocab, dropout)
    return dict(
        num_clips=NUM_SEGMENTS,
        data_preprocessor=base['data_preprocessor'],
        backbone=dict(in_channels=FEATURE_SIZE, out_channels=8, kernel_size=1, stride=1),
        neck=dict(channels=8, embed_channels=8),
        text_encoder=dict(base['text_encoder'], spaces=('contrastive',)),
    )


def write_weak_config(path: Path, corpus: Path, epochs: int = 2, extra: str = '') -> Path:
    """Write a config that inherits mscl_charades.py and trains a tiny model on `corpus`."""
    settings = f'model = {tiny_weak_model(corpus / "vocab.txt")!r}\n'
    settings += 'default_hooks = dict(stages=dict(from_epochs=[1, 1, 2, 2]))\n'
    return write_config(
        path, corpus, 'mmn_plugin::mscl_charades.py', epochs, extra=settings + extra
    )
