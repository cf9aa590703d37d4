"""Vision models of Hugging Face, frame by frame."""

import json

import numpy as np
import pytest
import torch
from helpers.tiny_extractors import SIDE, write_vision_model
from helpers.tiny_towers import write_dual_tower
from transformers import ViTModel

from mmn_plugin.features import EXTRACTORS


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    kinds = dict(plain=False, pooled=True)
    return {
        kind: write_vision_model(tmp_path_factory.mktemp(kind), pooler)
        for kind, pooler in kinds.items()
    }


@pytest.fixture(scope='module')
def frames():
    return list(np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), dtype=np.uint8))


def described(kind, folder, pixels):
    """What the model gives for prepared frames."""
    model = ViTModel.from_pretrained(folder, add_pooling_layer=kind == 'pooled').eval()
    with torch.inference_mode():
        found = model(pixels)
    return found.pooler_output if kind == 'pooled' else found.last_hidden_state.mean(1)


@pytest.mark.parametrize('kind', ['plain', 'pooled'])
def test_rows_are_means_of_what_the_model_gives(kind, models, frames):
    extractor = EXTRACTORS.build(models[kind])
    rows = extractor(frames)
    assert rows.shape == (3, 16)
    pixels = torch.from_numpy(np.stack([extractor.prepare(frame) for frame in frames]))
    assert pixels.shape == (5, 3, SIDE, SIDE)
    single = described(kind, models[kind]['model'], pixels).numpy()
    np.testing.assert_allclose(rows[:2], single[:4].reshape(2, 2, -1).mean(1), atol=1e-5)
    np.testing.assert_allclose(rows[2], single[4], atol=1e-5)  # the last frame stands still
    assert extractor.num_features == 16


def test_frames_are_normalized_as_the_model_says(models):
    white = EXTRACTORS.build(models['plain']).prepare(np.full((20, 30, 3), 255, np.uint8))
    np.testing.assert_allclose(white, 1, atol=1e-6)


def test_settings_tell_models_and_outputs_apart(models):
    kinds = [
        EXTRACTORS.build(dict(models['pooled'], **change))
        for change in ({}, dict(output='last_hidden_state'), dict(stride=1), dict(fps=1))
    ]
    kinds.append(EXTRACTORS.build(models['plain']))
    assert len({str(kind.settings) for kind in kinds}) == len(kinds)
    assert json.loads(kinds[-1].identity)['output'] == 'last_hidden_state'
    for kind in models:  # also where the model is published without a pooler
        again = [EXTRACTORS.build(models[kind]).settings for _ in range(2)]
        assert again[0] == again[1]


def test_an_output_that_a_model_lacks_is_said(models):
    with pytest.raises(ValueError, match="output='logits'"):
        EXTRACTORS.build(dict(models['plain'], output='logits'))


def test_random_weights_are_not_taken_for_a_models(models, frames, tmp_path):
    from safetensors.torch import load_file, save_file

    with pytest.raises(ValueError, match=r'lacks weights.*pooler'):
        EXTRACTORS.build(dict(models['plain'], output='pooler_output'))(frames)
    settings = write_vision_model(tmp_path)
    weights = load_file(tmp_path / 'model.safetensors')
    del weights['layernorm.weight']
    save_file(weights, tmp_path / 'model.safetensors', metadata=dict(format='pt'))
    with pytest.raises(ValueError, match=r'lacks weights of AutoModel.*layernorm'):
        EXTRACTORS.build(settings)(frames)


def test_a_model_with_a_text_side_is_left_to_the_dual_tower(tmp_path, frames):
    settings = dict(write_dual_tower(tmp_path, 'clip'), type='HuggingFaceFeatureExtractor')
    with pytest.raises(ValueError, match="take it as type='DualTower'"):
        EXTRACTORS.build(settings)(frames)


def test_a_model_that_is_not_there_is_an_error(tmp_path, frames, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    settings = dict(type='HuggingFaceFeatureExtractor', model=str(tmp_path / 'nothing'))
    with pytest.raises(OSError, match=r'no model .*nothing.*--model-root'):
        EXTRACTORS.build(settings)(frames)
