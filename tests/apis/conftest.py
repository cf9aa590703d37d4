"""A tiny model with a checkpoint as training writes it, and a video to ask about."""

import pytest
import torch
from helpers.tiny_grounder import write_grounder, write_scene
from mmengine.config import Config

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.shapes import GridFeatureExtractor


@pytest.fixture(scope='session')
def grounder(tmp_path_factory):
    grounder = write_grounder(tmp_path_factory.mktemp('grounder'))
    grounder.video = write_scene(grounder.folder)
    loaded = torch.load(grounder.checkpoint)
    settings = Config.fromfile(grounder.config).to_dict()
    loaded['meta'].update(settings=settings, epoch=3, tensor=torch.ones(2))
    torch.save(loaded, grounder.checkpoint)
    return grounder


@pytest.fixture(scope='session')
def inferencer(grounder):
    return GroundingInferencer(grounder.config, grounder.checkpoint, device='cpu')


@pytest.fixture(scope='session')
def features(grounder):
    """Of the video, (T, D)."""
    return GridFeatureExtractor()(grounder.video)
