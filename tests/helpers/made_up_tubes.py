"""Videos of a few random tubes, and a config of a few channels that trains on them in seconds."""

from pathlib import Path

import numpy as np
from mmengine.structures import InstanceData

from helpers.tiny_corpus import VOCABULARY, WORDS, tiny_model, write_settings
from mmn_plugin.datasets import TubeVideo, write_tube_file
from mmn_plugin.structures import TubeDataSample

SIZES = dict(appearance=4, flow=3)


def random_tube(rng, num_boxes: int, start: int = 0) -> np.ndarray:
    """(n, 5), frames in a row."""
    low = rng.uniform(0, 40, (num_boxes, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 30, (num_boxes, 2))], 1)
    return np.concatenate([start + np.arange(num_boxes)[:, None], boxes], 1).astype(np.float32)


def random_video(rng, name: str, num_tubes: int = 3, num_sentences: int = 1) -> TubeVideo:
    """Streams of a tube differ in length; the first candidates overlap the ground truth."""
    truth = [random_tube(rng, int(rng.integers(20, 40)), 10) for _ in range(num_sentences)]
    tubes = [
        random_tube(rng, int(rng.integers(1, 60)), int(rng.integers(0, 20)))
        for _ in range(num_tubes)
    ]
    if num_tubes:
        tubes[0] = truth[0] + np.float32([0, 1, -1, 1, 0])
    features = {
        stream: [
            rng.standard_normal((int(rng.integers(1, 20)), size)).astype(np.float32) for _ in tubes
        ]
        for stream, size in SIZES.items()
        if num_tubes
    }
    sentences = [' '.join(rng.choice(WORDS, 5)) for _ in range(num_sentences)]
    return TubeVideo(name, sentences, truth, tubes, features)


def tube_sample(video: TubeVideo) -> TubeDataSample:
    """A video as the dataset gives it to a model."""
    sample = TubeDataSample(
        metainfo=dict(
            video_id=video.video_id,
            sentences=video.sentences,
            sentence_index=list(range(len(video.sentences))),
            tubes=video.tubes,
            tube_index=list(range(len(video.tubes))),
        )
    )
    sample.gt_instances = InstanceData(tubes=video.ground_truth)
    return sample


def write_tubes(folder: Path, train: int = 6, test: int = 5, seed: int = 0) -> Path:
    """Write train.h5, test.h5 (one video of it without tubes) and vocab.txt."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_tube_file(
        folder / 'train.h5',
        [random_video(rng, f'train_{i}', 2 + i % 3, 1 + i % 2) for i in range(train)],
    )
    write_tube_file(
        folder / 'test.h5',
        [random_video(rng, f'test_{i}', 0 if i == 2 else 3) for i in range(test)],
    )
    (folder / 'vocab.txt').write_text('\n'.join(VOCABULARY) + '\n')
    return folder


def write_tube_config(path: Path, corpus: Path, epochs: int = 1) -> Path:
    """A config that inherits HC-STVG's and trains a tiny model."""
    loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
    loader['dataset'] = dict(data_root=f'{corpus}/', streams=list(SIZES))
    model = tiny_model(corpus / 'vocab.txt')
    model['backbone']['in_channels'] = sum(SIZES.values())
    settings = dict(
        _base_='mmn_plugin::mmn_hcstvg.py',
        model=model,
        **{f'{split}_dataloader': loader for split in ('train', 'val', 'test')},
        train_cfg=dict(max_epochs=epochs),
        default_hooks=dict(
            checkpoint=dict(save_best='tubes/m_vIoU'), freeze_language_model=dict(through_epoch=0)
        ),
        randomness=dict(seed=0),
    )
    return write_settings(
        path, settings, "model['grid'] = dict(num_clips=16, pooling_counts=[15])\n"
    )


def write_asked_config(folder: Path) -> Path:
    """A config as above for raw videos: features and tracks are those of Shapes."""
    from mmn_plugin.shapes.features import TubeFeatureExtractor

    config = write_tube_config(folder / 'tiny.py', write_tubes(folder / 'corpus'))
    size = sum(TubeFeatureExtractor.sizes.values())
    with config.open('a') as file:
        file.write(
            f"model['backbone']['in_channels'] = {size}\n"
            "custom_imports = dict(imports=['mmn_plugin', 'mmn_plugin.shapes'])\n"
            "extractor = dict(type='TubeFeatureExtractor', size=32)\n"
            "tracker = dict(type='ShapesTracker', min_area=8)\n"
        )
    return config
