"""A model of a few channels with random weights, and rendered videos to ask it about."""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from mmaction.registry import MODELS
from mmengine.config import Config

from helpers.tiny_corpus import write_config, write_corpus
from mmn_plugin.shapes import GridFeatureExtractor, SceneRenderer, SceneSampler
from mmn_plugin.shapes.corpus import write_video

GRID_SIZE = GridFeatureExtractor().num_features


GRID = dict(type='GridFeatureExtractor', fps=8.0, stride=6)


def write_grounder(
    folder: Path, in_channels: int | None = None, extractor: dict = GRID
) -> SimpleNamespace:
    """Config and checkpoint, with ``in_channels`` for the grid extractor unless given."""
    corpus = write_corpus(folder / 'corpus')
    size = GRID_SIZE if in_channels is None else in_channels
    extra = (
        f"model['backbone']['in_channels'] = {size}\nextractor = {extractor!r}\n"
        "custom_imports = dict(imports=['mmn_plugin.shapes'])\n"
    )
    config = write_config(folder / 'tiny.py', corpus, extra=extra)
    return SimpleNamespace(
        folder=folder,
        corpus=corpus,
        config=config,
        checkpoint=save_checkpoint(config, folder / 'tiny.pth'),
    )


def save_checkpoint(config: Path, path: Path) -> Path:
    """What a training with this config would save, with random weights."""
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    torch.save(
        dict(
            meta=dict(tokenizer=model.data_preprocessor.tokenizer.state()),
            state_dict=model.state_dict(),
        ),
        path,
    )
    return path


def write_scene(folder: Path, name: str = 'scene', annotations: str = 'scene.json') -> Path:
    """A short rendered video, with an annotation in the words of the tiny corpus."""
    scene = SceneSampler(seed=0).sample(0, name, training=True)
    path = folder / f'{name}.mp4'
    write_video(path, SceneRenderer(32).render(scene), scene.fps)
    (folder / annotations).write_text(
        json.dumps(
            {
                name: dict(
                    duration=scene.duration,
                    timestamps=[[2.0, 8.0], [5.0, 4.0], [9.0, 20.0]],
                    sentences=['a person opens the door', 'reversed', 'a red box'],
                ),
                'other': dict(duration=9.0, timestamps=[[1.0, 2.0]], sentences=['a blue box']),
            }
        )
    )
    return path
