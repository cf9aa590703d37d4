"""Vision models of Hugging Face, frame by frame."""

import json

import numpy as np
import pytest
import torch
from helpers.tiny_extractors import SIDE, write_vision_model
from transformers import CLIPModel, SiglipModel, ViTModel

from mmn_plugin.features import EXTRACTORS

SIZES = dict(clip=12, siglip=16, vit=16)


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    return {kind: write_vision_model(tmp_path_factory.mktemp(kind), kind) for kind in SIZES}


@pytest.fixture(scope='module')
def frames():
    return list(np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), dtype=np.uint8))


def described(kind, folder, pixels):
    """What the whole model gives for prepared frames."""
    with torch.inference_mode():
        if kind == 'vit':
            model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
            return model(pixels).last_hidden_state.mean(1)
        model = dict(clip=CLIPModel, siglip=SiglipModel)[kind].from_pretrained(folder).eval()
        found = model.get_image_features(pixel_values=pixels)
        return found if torch.is_tensor(found) else found.pooler_output


@pytest.mark.parametrize('kind', SIZES)
def test_rows_are_means_of_what_the_whole_model_gives(kind, models, frames):
    extractor = EXTRACTORS.build(models[kind])
    rows = extractor(frames)
    assert rows.shape == (3, SIZES[kind])
    pixels = torch.from_numpy(np.stack([extractor.prepare(frame) for frame in frames]))
    assert pixels.shape == (5, 3, SIDE, SIDE)
    single = described(kind, models[kind]['model'], pixels).numpy()
    np.testing.assert_allclose(rows[:2], single[:4].reshape(2, 2, -1).mean(1), atol=1e-5)
    np.testing.assert_allclose(rows[2], single[4], atol=1e-5)  # the last frame stands still
    assert extractor.num_features == SIZES[kind]


def test_frames_are_normalized_as_the_model_says(models):
    white = EXTRACTORS.build(models['siglip']).prepare(np.full((20, 30, 3), 255, np.uint8))
    np.testing.assert_allclose(white, 1, atol=1e-6)
    black = EXTRACTORS.build(models['clip']).prepare(np.zeros((20, 30, 3), np.uint8))
    np.testing.assert_allclose(black[:, 0, 0], [-1.7923, -1.7521, -1.4802], atol=1e-3)


def test_settings_tell_models_and_outputs_apart(models):
    kinds = [
        EXTRACTORS.build(dict(models['clip'], **change))
        for change in ({}, dict(output='last_hidden_state'), dict(stride=1), dict(fps=1))
    ]
    kinds.append(EXTRACTORS.build(models['siglip']))
    assert len({str(kind.settings) for kind in kinds}) == len(kinds)
    assert json.loads(kinds[0].identity)['output'] == 'image_embeds'
    assert EXTRACTORS.build(models['clip']).settings == kinds[0].settings


def test_an_output_that_a_model_lacks_is_said(models, frames):
    with pytest.raises(ValueError, match="no output 'image_embeds'; it has"):
        EXTRACTORS.build(dict(models['siglip'], output='image_embeds'))(frames)
    with pytest.raises(ValueError, match="output='logits'"):
        EXTRACTORS.build(dict(models['siglip'], output='logits'))


def test_random_weights_are_not_taken_for_a_models(models, frames, tmp_path):
    from safetensors.torch import load_file, save_file

    settings = write_vision_model(tmp_path, 'clip')
    weights = load_file(tmp_path / 'model.safetensors')
    del weights['visual_projection.weight']
    save_file(weights, tmp_path / 'model.safetensors', metadata=dict(format='pt'))
    with pytest.raises(ValueError, match=r'lacks weights of CLIP.*visual_projection'):
        EXTRACTORS.build(settings)(frames)
    with pytest.raises(ValueError, match=r'lacks weights of AutoModel.*pooler'):
        EXTRACTORS.build(dict(models['vit'], output='pooler_output'))(frames)


def test_a_model_that_is_not_there_is_an_error(tmp_path, frames, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises((OSError, ValueError), match='nothing'):
        EXTRACTORS.build(dict(type='HuggingFaceFeatureExtractor', model=str(tmp_path / 'nothing')))(
            frames
        )
