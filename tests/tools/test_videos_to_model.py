"""From videos to a trained model and its answers, with towers of a few channels."""

import json
import re
import shutil

import h5py
import pytest
import torch
from helpers.run_tool import output_of
from helpers.tiny_corpus import write_config
from helpers.tiny_towers import write_dual_tower

from mmn_plugin.config import load_config
from mmn_plugin.shapes import ShapesCorpus

TOWERS = dict(mmn_charades_siglip2='siglip', mmn_charades_videoprism='videoprism')


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """Twelve videos of Shapes with their annotations as the datasets look for them."""
    folder = tmp_path_factory.mktemp('shapes')
    ShapesCorpus(folder, 12, size=32).write(workers=0)
    for split in ('train', 'test'):
        shutil.copy(folder / 'annotations' / f'{split}.json', folder)
    return folder


@pytest.fixture(params=TOWERS)
def config(request, tmp_path, videos, monkeypatch):
    """A config of the package made small, and its tower below the folder of all models."""
    name = request.param
    model = load_config(f'{name}.py').extractor.model
    write_dual_tower(tmp_path / 'models' / model, TOWERS[name])
    monkeypatch.setenv('MMN_MODEL_ROOT', str(tmp_path / 'models'))
    small = """
model['backbone']['in_channels'] = 16
model['text_encoder']['config']['vocab_size'] = 512
model['head'] = dict(tower_weight=1.0)
"""
    if TOWERS[name] == 'videoprism':
        small += "extractor = dict(clip_len=4)\nmodel['tower'] = extractor\n"
    shutil.copytree(videos, tmp_path / 'data')
    path = tmp_path / f'{name}.py'
    return write_config(path, tmp_path / 'data', f'mmn_plugin::{name}.py', epochs=1, extra=small)


def test_a_user_goes_from_videos_to_answers(config, tmp_path):
    data, work = tmp_path / 'data', tmp_path / 'work'
    features = data / 'features.h5'
    line = 'mmn extract {} --config {} --out {} --device cpu'
    output_of(line, data / 'videos', config, features)
    with h5py.File(features) as file:
        assert len(file) == 12
        assert {file[name].shape[1] for name in file} == {16}
    assert 'PASSED' in output_of('mmn check {}', config)
    output_of('train.py {} --work-dir {}', config, work)
    checkpoint = work / 'epoch_1.pth'
    loaded = torch.load(checkpoint, weights_only=True)
    meta = loaded['meta']
    tower, extractor = dict(meta['tower']), dict(meta['extractor'][0])
    assert tower.pop('config').items() <= extractor.pop('config').items()
    assert tower.items() <= extractor.items()
    assert not [name for name in loaded['state_dict'] if 'tower' in name]
    output = output_of('test.py {} {} --work-dir {}', config, checkpoint, tmp_path / 'test')
    assert re.search(r'grounding/R1@0.5: \d', output)
    video = sorted((data / 'videos').glob('*.mp4'))[0]
    annotations = json.loads((data / 'test.json').read_text())
    sentence = next(iter(annotations.values()))['sentences'][0]
    answer = output_of('mmn ground {} {} --checkpoint {}', video, sentence, checkpoint)
    assert sentence in answer
