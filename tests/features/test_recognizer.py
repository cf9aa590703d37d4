"""Any recognizer of MMAction2 as a feature extractor."""

import numpy as np
import pytest
import torch
from helpers.tiny_extractors import build, save_weights, write_recognizer
from mmaction.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate

from mmn_plugin.features import EXTRACTORS, sliding_windows
from mmn_plugin.features.recognizer import RecognizerConfig, pool_features


@pytest.fixture(scope='module')
def settings(tmp_path_factory):
    return write_recognizer(tmp_path_factory.mktemp('recognizer'))


@pytest.fixture(scope='module')
def frames():
    return list(np.random.default_rng(0).integers(0, 255, (22, 48, 64, 3), dtype=np.uint8))


def recognized(settings, clip):
    """What the recognizer itself computes for a clip, through MMAction2's own pipeline."""
    config = Config.fromfile(settings['config'])
    model = build(config.model).eval()
    model.load_state_dict(torch.load(settings['checkpoint'])['state_dict'])
    steps = [
        step
        for step in config.val_dataloader.dataset.pipeline
        if step['type'] not in ('DecordInit', 'SampleFrames', 'DecordDecode')
    ]
    packed = Compose([TRANSFORMS.build(step) for step in steps])(
        dict(
            imgs=list(clip),
            img_shape=clip[0].shape[:2],
            original_shape=clip[0].shape[:2],
            modality='RGB',
            num_clips=1,
            clip_len=len(clip),
            label=0,
        )
    )
    inputs = model.data_preprocessor(pseudo_collate([packed]))['inputs']
    with torch.inference_mode():
        return model, model.extract_feat(inputs, stage='backbone')[0]


@pytest.mark.parametrize('kind', ['3d', '2d'])
def test_rows_are_what_the_recognizer_computes_for_the_clip(kind, tmp_path, frames):
    settings = write_recognizer(tmp_path, kind)
    given = {} if kind == '3d' else dict(clip_len=4, frame_interval=2)
    features = EXTRACTORS.build(dict(settings, batch_size=4, **given))(frames)
    assert features.shape == (6, 32 if kind == '3d' else 512)
    assert features.dtype == np.float32
    for row, clip in zip(features, sliding_windows(frames, 4, 4, 2), strict=True):
        _, maps = recognized(settings, clip)  # (1, C, T, H, W) or (T, C, H, W)
        expected = maps.mean((0, 2, 3)) if kind == '2d' else maps.mean((0, 2, 3, 4))
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-6)


def test_a_layer_by_name_its_input_and_an_activation(settings, frames):
    def features(**options):
        return EXTRACTORS.build(dict(settings, **options))(frames)

    classified = features(layer='cls_head.fc_cls', layer_input=True, batch_size=5)
    np.testing.assert_allclose(classified, features(), rtol=1e-4, atol=1e-6)
    plain = features(layer='backbone.layer2.0.conv1.conv')
    assert plain.shape == (6, 8)
    assert plain.min() < 0
    bent = features(layer='backbone.layer2.0.conv1.conv', activation='relu')
    np.testing.assert_array_equal(bent, plain.clip(0))


def test_weights_of_the_backbone_alone_serve_as_well(settings, frames, tmp_path):
    state = torch.load(settings['checkpoint'])['state_dict']
    alone = {
        key.removeprefix('backbone.'): value
        for key, value in state.items()
        if key.startswith('backbone.')
    }
    torch.save(dict(alone, **{'fc8.bias': torch.zeros(487)}), tmp_path / 'backbone.pth')
    given = dict(settings, checkpoint=str(tmp_path / 'backbone.pth'))
    extractor = EXTRACTORS.build(dict(given, ignored_weights=[r'backbone\.fc8\.']))
    whole = EXTRACTORS.build(settings)
    np.testing.assert_array_equal(extractor(frames), whole(frames))
    assert extractor.settings == whole.settings  # by the weights, not by the file
    with pytest.raises(ValueError, match=r'backbone\.pth does not fit recognizer.*fc8'):
        EXTRACTORS.build(given)(frames)


def test_settings_tell_extractors_apart(settings, tmp_path):
    plain = EXTRACTORS.build(settings)
    other = write_recognizer(tmp_path)
    torch.manual_seed(1)
    save_weights(RecognizerConfig(other['config']).model, tmp_path / 'recognizer.pth')
    scaled = [dict(type='Resize', scale=(32, 32), keep_ratio=False)]
    changes = (
        *(dict(layer='backbone.layer2'), dict(clip_len=8), dict(fps=4), dict(stride=2)),
        *(dict(pipeline=scaled), other),
    )
    kinds = [plain, *(EXTRACTORS.build(dict(settings, **change)) for change in changes)]
    assert len({str(kind.settings) for kind in kinds}) == len(kinds)
    assert EXTRACTORS.build(dict(settings, batch_size=1)).settings == plain.settings
    assert plain.fingerprint == dict(plain.settings, feature_size=32)


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (dict(layer='backbone.fc6'), ValueError, r"no layer 'backbone\.fc6'; .*backbone\.layer4"),
        (dict(checkpoint=''), ValueError, 'needs a checkpoint'),
        (dict(checkpoint='none.pth'), FileNotFoundError, r'none\.pth'),
        (dict(config='none.py'), FileNotFoundError, r'no recognizer config none\.py'),
        (dict(config='mmaction::recognition/c3d/none.py'), FileNotFoundError, 'c3d_sports1m'),
        (dict(config='mmpretrain::none.py'), FileNotFoundError, 'give a path'),
        (dict(config=dict(a=1)), ValueError, 'it is no recognizer'),
        (dict(activation='tanh'), ValueError, "activation='tanh'"),
        (dict(stride=0), ValueError, 'stride=0; it must be a whole number above 0'),
        (dict(stride=2.5), ValueError, 'stride=2.5'),
        (dict(fps=-1), ValueError, 'fps=-1'),
    ],
)
def test_what_cannot_be_is_said(settings, frames, change, error, message):
    with pytest.raises(error, match=message):
        EXTRACTORS.build(dict(settings, **change))(frames)


def test_a_recognizer_of_single_frames_needs_a_clip_length(tmp_path):
    with pytest.raises(ValueError, match='give the extractor clip_len and frame_interval'):
        EXTRACTORS.build(write_recognizer(tmp_path, '2d'))


def test_a_checkpoint_of_another_network_is_refused(settings, frames, tmp_path):
    model = RecognizerConfig(settings['config']).model
    model['backbone']['base_channels'] = 8
    model['cls_head']['in_channels'] = 64
    save_weights(model, tmp_path / 'wide.pth')
    with pytest.raises(ValueError, match=r'wide\.pth does not fit recognizer: .*size mismatch'):
        EXTRACTORS.build(dict(settings, checkpoint=str(tmp_path / 'wide.pth')))(frames)


def test_a_layer_that_does_not_run_once_is_refused(settings, frames):
    extractor = EXTRACTORS.build(settings)
    extractor._watch(extractor.model.backbone.layer1)
    with pytest.raises(RuntimeError, match="'backbone' of recognizer ran 2 times"):
        extractor(frames)


def test_c3d_of_the_zoo_gives_fc6_and_fc7(c3d_weights, shared):
    """Real size, random weights, a real video: what the shipped configs ask for."""
    fc6, fc7 = (
        EXTRACTORS.build(
            dict(
                Config.fromfile(f'mmn_plugin::extractors/c3d_{layer}_sports1m.py').extractor,
                checkpoint=c3d_weights,
                device='cpu',
            )
        )
        for layer in ('fc6', 'fc7')
    )
    assert (fc6.clip_len, fc6.frame_interval) == (16, 1)
    assert fc6.steps == [
        dict(type='Resize', scale=(-1, 128)),
        dict(type='CenterCrop', crop_size=112),
    ]
    frames = [
        frame
        for frame, _ in zip(
            fc6.reader(shared / 'media' / 'basketball.mp4'), range(20), strict=False
        )
    ]
    rows = fc6(frames)
    assert rows.shape == (2, 4096)
    assert rows.min() == 0 < rows.max()
    backbone = fc6.model.backbone
    with torch.inference_mode():
        after = backbone.relu(backbone.fc7(torch.from_numpy(rows)))
    fc7._model = fc6.model
    del fc6  # its hook stays on layer fc6; the one of fc7 is set here
    fc7._watch(backbone)
    np.testing.assert_allclose(fc7(frames), after, rtol=1e-4, atol=1e-6)


def test_pooling_of_everything_that_layers_give():
    maps = torch.arange(48.0).reshape(2, 3, 2, 2, 2)
    assert torch.equal(pool_features(maps, 2), maps.mean((2, 3, 4)))
    assert torch.equal(pool_features(maps.flatten(3), 2), maps.mean((2, 3, 4)))
    tokens = maps.flatten(2).transpose(1, 2)  # (2, 8, 3)
    assert torch.equal(pool_features(tokens, 2), maps.mean((2, 3, 4)))
    assert torch.equal(pool_features([maps, None, (tokens,)], 2), maps.mean((2, 3, 4)).repeat(1, 2))
    frames = torch.arange(12.0).reshape(6, 2)  # three frames of two clips
    assert torch.equal(pool_features(frames, 2), frames.reshape(2, 3, 2).mean(1))
