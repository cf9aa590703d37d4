"""A corpus of a few videos in QVHighlights' format, and a config that trains on it in a second."""

import json
from pathlib import Path

import numpy as np

from .tiny_corpus import VOCABULARY, WORDS, tiny_model, write_settings

SIZES = dict(clip_features=4, slowfast_features=3)
FILES = dict(
    train='highlight_train_release', val='highlight_val_release', test='highlight_test_with_gt'
)


def query(qid, vid, duration, rng, count=None):
    """A line with ``count`` windows, by default one to three, of whole clips of 2 s."""
    clips = duration // 2
    count = int(rng.integers(1, 4)) if count is None else count
    edges = np.sort(rng.choice(clips + 1, 2 * count, replace=False)).reshape(-1, 2)
    relevant = [clip for start, end in edges.tolist() for clip in range(start, end)]
    return dict(
        qid=qid,
        query=' '.join(rng.choice(WORDS, 5)) + '.',
        duration=duration,
        vid=vid,
        relevant_clip_ids=relevant,
        saliency_scores=rng.integers(0, 5, (len(relevant), 3)).tolist(),
        relevant_windows=(2 * edges).tolist(),
    )


def write_lines(path, lines):
    """Write JSON lines; a text as it is."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text('\n'.join(texts) + '\n')


def write_features(folder, vid, rows, rng):
    """Write a video's features of both sources, of (clip, slowfast) rows."""
    for (name, size), count in zip(SIZES.items(), rows, strict=True):
        (folder / name).mkdir(exist_ok=True)
        values = rng.standard_normal((count, size)).astype(np.float32)
        np.savez(folder / name / f'{vid}.npz', features=values)


def write_qvhighlights(folder: Path, counts=(8, 5, 5), seed: int = 0) -> Path:
    """Write the three files, both folders of features and vocab.txt; returns the folder.

    Two of three videos last 30 s, the others 24 s; the first one of each file has two queries, not
    one after the other, and features lack a row or have one too many.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for (split, name), count in zip(FILES.items(), counts, strict=True):
        vids = [f'{split}{i}_{i}.0_{i + 30}.0' for i in range(count)]
        durations = {vid: 24 if i % 3 == 2 else 30 for i, vid in enumerate(vids)}
        asked = [*vids, vids[0]]
        lines = [query(100 + i, vid, durations[vid], rng) for i, vid in enumerate(asked)]
        write_lines(folder / f'{name}.jsonl', lines)
        for i, vid in enumerate(vids):
            rows = durations[vid] // 2
            write_features(folder, vid, (rows - (i == 1), rows + (i == 0)), rng)
    (folder / 'vocab.txt').write_text('\n'.join(VOCABULARY) + '\n')
    return folder


def write_qvhighlights_config(path: Path, corpus: Path, epochs: int = 2, extra: str = '') -> Path:
    """Write a config that inherits the published form and trains a tiny model on the corpus."""
    loader = dict(batch_size=3, num_workers=0, persistent_workers=False)
    sizes = tuple(SIZES.values())
    pool = dict(type='PoolClipFeatures', num_segments=15, clamp_last=False, source_sizes=sizes)
    settings = dict(
        _base_='mmn_plugin::mmn_qvhighlights.py',
        model=tiny_model(corpus / 'vocab.txt')
        | dict(
            grid=dict(num_clips=15, pooling_counts=[14]),
            backbone=dict(in_channels=sum(sizes), out_channels=8),
        ),
        train_cfg=dict(max_epochs=epochs),
        randomness=dict(seed=0),
    )
    for split in FILES:
        meta = dict(meta_keys=('lines',)) if split != 'train' else {}
        pack = dict(type='PackGroundingInputs', **meta)
        pipeline = [dict(type='LoadClipFeatures'), pool, pack]
        dataset = dict(data_root=f'{corpus}/', pipeline=pipeline)
        settings[f'{split}_dataloader'] = dict(loader, dataset=dataset)
    return write_settings(path, settings, extra)
