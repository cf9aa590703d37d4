"""What several tests of the interfaces share."""

import pytest
from helpers.tiny_extractors import save_weights

from mmn_plugin.features.recognizer import RecognizerConfig

C3D = 'mmaction::recognition/c3d/c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb.py'


@pytest.fixture(scope='session')
def c3d_weights(tmp_path_factory):
    """C3D in its real size, with random weights: 300 MB."""
    path = tmp_path_factory.mktemp('c3d') / 'c3d.pth'
    save_weights(RecognizerConfig(C3D).model, path, 'backbone.')
    yield str(path)
    path.unlink()
