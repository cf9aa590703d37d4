"""Dual encoders: sentences and frames as transformers' own classes give them."""

import copy
import json
import pickle
import weakref
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers.tiny_towers import (
    LIMIT,
    SIDE,
    tiny_dual_model,
    tiny_pe_video,
    write_dual_tower,
    write_pe_video,
    write_text_tower,
)
from mmaction.registry import MODELS
from transformers import AutoTokenizer

from mmn_plugin.features import (
    EXTRACTORS,
    TextTower,
    build_extractor,
    extract_videos,
    frame_preparation,
)
from mmn_plugin.features.feature_file import (
    differences,
    read_fingerprint,
    require_same_extractor,
)
from mmn_plugin.shapes.corpus import write_video

FRAME_TOWERS = ('clip', 'siglip', 'metaclip_2', 'chinese_clip', 'altclip')
VIDEO_TOWERS = ('videoprism', 'xclip')
KINDS = (*FRAME_TOWERS, *VIDEO_TOWERS)
SENTENCES = ['a man opens the door', 'the dog', 'red ball']


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    root, made = tmp_path_factory.mktemp('dual_towers'), {}

    def folder(kind):
        if kind not in made:
            made[kind] = write_dual_tower(root / kind, kind)
        return made[kind]

    return folder


@pytest.fixture(scope='module')
def frames():
    return list(np.random.default_rng(0).integers(0, 255, (9, 48, 64, 3), dtype=np.uint8))


def value(found):
    return found if torch.is_tensor(found) else found.pooler_output


@pytest.mark.parametrize('kind', KINDS)
def test_sentences_are_what_the_model_gives(kind, folders):
    tower = MODELS.build(folders(kind))
    padded = kind in ('siglip', 'videoprism')
    tokens = AutoTokenizer.from_pretrained(tower.name)(
        SENTENCES,
        return_tensors='pt',
        padding='max_length' if padded else True,
        max_length=LIMIT,
        truncation=True,
    )
    tokens.pop('token_type_ids', None)
    with torch.inference_mode():
        expected = value(tiny_dual_model(kind).get_text_features(**tokens))
    expected = torch.nn.functional.normalize(expected, dim=1)
    assert (expected @ expected.T - torch.eye(3)).max() < 0.99  # sentences are told apart
    torch.testing.assert_close(tower.encode_sentences(SENTENCES), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize('kind', FRAME_TOWERS)
def test_rows_of_a_frame_tower_are_means_over_the_stride(kind, folders, frames):
    tower = EXTRACTORS.build(folders(kind))
    rows = tower(frames[:5])
    pixels = tower.preparation.normalize(tower.preparation.scale(torch.tensor(np.stack(frames))))
    assert pixels.shape[1:] == (3, SIDE, SIDE)
    with torch.inference_mode():
        single = value(tiny_dual_model(kind).get_image_features(pixel_values=pixels)).numpy()
    np.testing.assert_allclose(rows[:2], single[:4].reshape(2, 2, -1).mean(1), atol=1e-5)
    np.testing.assert_allclose(rows[2], single[4], atol=1e-5)  # the last frame stands still
    assert tower.num_features == rows.shape[1] == tower.encode_sentences(['dog']).shape[1]


@pytest.mark.parametrize('kind', VIDEO_TOWERS)
def test_rows_of_a_video_tower_are_windows_around_the_stride(kind, folders, frames):
    tower = EXTRACTORS.build(dict(folders(kind), batch_size=3))
    rows = tower(frames)
    assert tower.clip_len == 4
    pixels = tower.preparation.normalize(tower.preparation.scale(torch.tensor(np.stack(frames))))
    places = (2 * np.arange(5)[:, None] + np.arange(-1, 3)).clip(0, 8)
    with torch.inference_mode():
        expected = value(tiny_dual_model(kind).get_video_features(pixels[places]))
    np.testing.assert_allclose(rows, expected.reshape(5, -1), atol=1e-5)
    assert tower.num_features == rows.shape[1] == tower.encode_sentences(['dog']).shape[1]


@pytest.mark.parametrize('kind', ['clip', 'videoprism'])
def test_a_video_shorter_than_the_window_stands_still(kind, folders, frames):
    tower = EXTRACTORS.build(folders(kind))
    repeated = 3 if kind == 'videoprism' else 1
    expected = tower([frames[0]] * 2)
    np.testing.assert_allclose(tower(frames[:1]), expected[:1], atol=1e-5)
    assert len(tower(frames[:repeated])) == (repeated + 1) // 2


def test_a_window_of_another_length_than_the_models_is_refused(folders, frames):
    tower = EXTRACTORS.build(dict(folders('videoprism'), clip_len=8))
    with pytest.raises(ValueError, match='takes windows of 4 frames; the tower has clip_len=8'):
        tower(frames)


def test_sides_have_one_scale(folders):
    scales = {kind: MODELS.build(folders(kind)) for kind in ('clip', 'siglip', 'videoprism')}
    assert scales['clip'].logit_scale == pytest.approx(np.exp(2.6592), rel=1e-4)
    assert scales['clip'].logit_bias is None
    model = tiny_dual_model('siglip')
    assert scales['siglip'].logit_scale == pytest.approx(model.logit_scale.exp().item())
    assert scales['siglip'].logit_bias == pytest.approx(model.logit_bias.item())
    assert scales['videoprism'].logit_scale is None


def test_texts_are_in_lower_case_where_the_training_had_them_so(folders):
    tower = MODELS.build(folders('siglip'))
    assert tower.encode_sentences(['A Dog']).equal(tower.encode_sentences(['a dog']))
    assert tower.max_tokens == LIMIT


def test_the_limit_of_tokens_is_the_models(folders):
    assert MODELS.build(folders('altclip')).max_tokens == LIMIT  # two positions are never used
    long = ' '.join(['red'] * 30)
    assert MODELS.build(folders('clip')).inspect([long]) == [(92, None)]
    assert MODELS.build(folders('clip')).encode_sentences([long]).isfinite().all()


@pytest.mark.parametrize(
    ('kind', 'sentence', 'problem'),
    [
        ('videoprism', '小狗', 'holds no word of the vocabulary'),
        ('metaclip_2', '小狗 !', 'holds no word of the vocabulary'),
        ('siglip', '!', 'holds no word'),
        ('clip', '小狗', None),  # spelled in bytes
    ],
)
def test_sentences_in_an_unknown_script_are_told(kind, sentence, problem, folders):
    found = MODELS.build(folders(kind)).inspect([sentence])[0][1]
    assert (found or '').startswith(problem or '')
    assert (found is None) == (problem is None)


def rewrite_config(folder, **changes):
    file = Path(folder) / 'config.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_models_that_are_no_dual_encoders_are_refused(tmp_path, frames):
    from helpers.tiny_extractors import write_vision_model

    cases = {
        write_vision_model(tmp_path / 'vit')['model']: 'has no text side',
        write_text_tower(tmp_path / 'bert'): 'has no text side',
    }
    naflex = write_dual_tower(tmp_path / 'naflex', 'siglip')['model']
    rewrite_config(naflex, model_type='siglip2')
    cases[naflex] = 'is a NaFlex variant of SigLIP 2'
    for folder, message in cases.items():
        with pytest.raises(ValueError, match=message):
            build_extractor(dict(type='DualTower', model=folder, device='cpu'))(frames)


def test_a_processor_that_cannot_be_followed_is_named(tmp_path, frames):
    settings = write_dual_tower(tmp_path / 'a', 'videoprism', resample=1)
    with pytest.raises(ValueError, match='resample=1'):
        EXTRACTORS.build(settings)(frames)
    settings = write_dual_tower(tmp_path / 'b', 'videoprism', do_normalize=True)
    with pytest.raises(ValueError, match="no 'image_mean' in its settings"):
        EXTRACTORS.build(settings)(frames)
    (tmp_path / 'b' / 'video_preprocessor_config.json').unlink()
    with pytest.raises(OSError, match='is no complete model'):
        EXTRACTORS.build(settings)(frames)


@pytest.mark.parametrize(
    ('kind', 'extractor', 'resample'),
    [('clip', 'CLIPFeatureExtractor', 3), ('xclip', 'VideoMAEFeatureExtractor', 2)],
)
def test_processors_as_they_were_written_years_ago_are_read(kind, extractor, resample, tmp_path):
    settings = write_dual_tower(tmp_path, kind)
    flags = dict(do_resize=True, do_center_crop=True, do_normalize=True, size=224, crop_size=224)
    numbers = dict(resample=resample, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    content = dict(flags, **numbers, feature_extractor_type=extractor)
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(content))
    found = EXTRACTORS.build(settings).preparation
    assert found.size == dict(shortest_edge=224)
    assert found.crop_size == (224, 224)
    assert found.resample == {2: 'bilinear', 3: 'bicubic'}[resample]
    assert (found.rescale_factor, found.std) == (pytest.approx(1 / 255), (0.25,) * 3)


@pytest.mark.parametrize('kind', ['clip', 'videoprism', 'chinese_clip'])
def test_a_model_that_was_copied_without_its_tokenizer_is_named(tmp_path, kind):
    tower = MODELS.build(write_dual_tower(tmp_path / kind, kind))
    for name in ('tokenizer.json', 'vocab.txt', 'tokenizer_config.json'):
        (tmp_path / kind / name).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=f'{kind} comes without its tokenizer'):
        tower.inspect(['a man'])


def test_weights_that_are_missing_are_named(tmp_path, frames):
    from safetensors.torch import load_file, save_file

    settings = write_dual_tower(tmp_path, 'clip')
    weights = load_file(tmp_path / 'model.safetensors')
    del weights['visual_projection.weight']
    save_file(weights, tmp_path / 'model.safetensors', metadata=dict(format='pt'))
    with pytest.raises(ValueError, match=r'lacks weights of AutoModel.*visual_projection'):
        EXTRACTORS.build(settings)(frames)


def test_features_are_told_apart_by_all_that_makes_them(folders):
    changes = ({}, dict(frame_interval=2), dict(amp='bf16'), dict(stride=1), dict(fps=1))
    towers = [EXTRACTORS.build(dict(folders('clip'), **change)) for change in changes]
    towers.append(EXTRACTORS.build(folders('siglip')))
    assert len({str(tower.settings) for tower in towers}) == len(towers)
    # sentences may be asked in other ways of the same features
    asked = MODELS.build(dict(folders('clip'), templates=['a video of {}'], sentence_batch=2))
    require_same_extractor([towers[0].fingerprint], [asked.fingerprint], 'a', ['b'])
    with pytest.raises(ValueError, match=r'\(DualTower clip and DualTower siglip\): '):
        require_same_extractor([towers[0].fingerprint], [towers[-1].fingerprint], 'a', ['b'])


def test_of_two_towers_what_differs_is_told_and_no_more(folders, tmp_path):
    text = TextTower(write_text_tower(tmp_path / 'bert'), device='cpu').fingerprint
    one, other = folders('clip'), write_dual_tower(tmp_path / 'clip', 'clip', image_mean=[0.5] * 3)
    one, other = (EXTRACTORS.build(settings).fingerprint for settings in (one, other))
    told = differences(one, other)
    assert [text.split()[0] for text in told] == ['preparation.mean']
    assert told[0].endswith('here [0.5, 0.5, 0.5]')
    told = [text.split(', here')[0] for text in differences(text, other)]
    assert told[-2] == 'extractor TextTower'
    assert told[-1].startswith('weights sha256:')
    assert {text.split()[0] for text in told[:-2]} <= {'feature_size', 'stride', 'fps'}


def test_mixed_precision_is_for_frames_alone(folders, frames):
    exact, mixed = (
        EXTRACTORS.build(dict(folders('videoprism'), amp=amp)) for amp in (None, 'bf16')
    )
    rows = exact(frames), mixed(frames)
    assert rows[1].dtype == np.float32
    assert 0 < np.abs(rows[0] - rows[1]).max() < 0.1
    assert mixed.encode_sentences(SENTENCES).equal(exact.encode_sentences(SENTENCES))


def test_a_copy_is_the_tower_and_a_pickle_has_no_weights(folders, frames):
    tower = EXTRACTORS.build(folders('clip'))
    rows = tower(frames)
    assert copy.deepcopy(tower) is tower
    stored = pickle.dumps(tower)
    assert len(stored) < 5000
    np.testing.assert_array_equal(pickle.loads(stored)(frames), rows)


@pytest.fixture
def pe_video(tmp_path):
    try:
        return write_pe_video(tmp_path)
    except ImportError as error:  # of earlier releases of transformers
        pytest.skip(f'a config needs timm: {error}')


def test_pe_video_gives_what_its_forward_pass_gives(pe_video, frames, monkeypatch):
    with pytest.raises(ValueError, match='any number of frames: give the tower clip_len'):
        EXTRACTORS.build(pe_video)(frames)
    model = tiny_pe_video()
    monkeypatch.setattr('mmn_plugin.features.dual_tower.load_weights', lambda *_, **__: model)
    tower = EXTRACTORS.build(dict(pe_video, clip_len=3))
    assert tower.max_tokens == 8  # the tokenizer's, less than the model's
    tokens = tower.tokenizer(SENTENCES, return_tensors='pt', padding=True)
    pixels = tower.preparation.normalize(tower.preparation.scale(torch.tensor(np.stack(frames))))
    places = (2 * np.arange(5)[:, None] + np.arange(-1, 2)).clip(0, 8)
    with torch.inference_mode():
        found = model(tokens['input_ids'], pixels[places], tokens['attention_mask'])
    np.testing.assert_allclose(tower(frames), found.video_embeds, atol=1e-5)
    expected = torch.nn.functional.normalize(found.text_video_embeds, dim=1)
    torch.testing.assert_close(tower.encode_sentences(SENTENCES), expected, atol=1e-5, rtol=0)
    assert (tower.logit_scale, tower.logit_bias) == (0, 0)  # as it is initialized


def test_a_package_that_a_model_needs_is_named(pe_video, frames):
    if find_spec('timm'):
        pytest.skip('timm is installed')
    with pytest.raises(ValueError, match='requires the timm library'):
        EXTRACTORS.build(dict(pe_video, clip_len=3))(frames)


def test_the_root_holds_the_tower_and_does_not_change_its_features(tmp_path, frames):
    settings = write_dual_tower(tmp_path / 'some-org' / 'tower', 'clip')
    rooted = EXTRACTORS.build(dict(settings, model='some-org/tower', root=str(tmp_path)))
    tower = EXTRACTORS.build(settings)
    np.testing.assert_array_equal(rooted(frames), tower(frames))
    assert not differences(rooted.fingerprint, tower.fingerprint)


def test_windows_of_videos_are_extracted_with_a_report_and_only_once(folders, tmp_path):
    write_video(tmp_path / 'short.mp4', np.full((2, 48, 64), 90, np.uint8), fps=8)
    (tmp_path / 'broken.mp4').write_bytes(b'no video')
    tower = EXTRACTORS.build(folders('videoprism'))
    report = extract_videos(tower, [tmp_path], tmp_path / 'f.h5', workers=0)
    assert list(report.failures) == ['broken']
    assert report.speed['frames'] == 1
    moving = np.random.default_rng(0).integers(0, 255, (24, 48, 64), dtype=np.uint8)
    write_video(tmp_path / 'long.mp4', moving, fps=8)
    report = extract_videos(tower, [tmp_path], tmp_path / 'f.h5', workers=2)  # processes
    assert report.speed['frames'] == 12
    with h5py.File(tmp_path / 'f.h5') as file:
        found = {name: np.array(data) for name, data in file.items()}
        assert not differences(read_fingerprint(tmp_path / 'f.h5'), tower.fingerprint)
    assert {name: rows.shape for name, rows in found.items()} == dict(short=(1, 16), long=(6, 16))
    np.testing.assert_allclose(found['long'], tower(tmp_path / 'long.mp4'), atol=1e-5)


def test_frames_in_memory_do_not_grow_with_a_video(folders, monkeypatch):
    monkeypatch.setattr(frame_preparation, 'CHUNK', 2 * 45 * 80 * 3 * 8)  # two frames
    tower = EXTRACTORS.build(dict(folders('videoprism'), batch_size=4))
    alive, most = 0, 0

    def gone():
        nonlocal alive
        alive -= 1

    def frames():
        nonlocal alive, most
        for place in range(1200):  # ten minutes at two frames per second
            frame = np.full((45, 80, 3), place % 256, np.uint8)
            weakref.finalize(frame, gone)
            alive += 1
            most = max(most, alive)
            yield frame

    assert sum(map(len, tower.blocks(frames()))) == 600
    assert most <= 6
