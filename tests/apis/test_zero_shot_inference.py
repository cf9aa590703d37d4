"""Three calls without a checkpoint: a tower from a folder, a video file, sentences."""

import copy
import json
import shutil
from unittest import mock

import pytest
import torch
from helpers.tiny_grounder import write_grounder, write_scene
from helpers.tiny_towers import write_dual_tower, write_text_tower
from helpers.zero_shot_config import SENTENCES, write_zero_shot
from mmengine.config import Config

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.errors import DownloadError, InputError
from mmn_plugin.features import VideoWriter, build_extractor, probe_video
from mmn_plugin.hub import with_model_root


@pytest.fixture(scope='module', params=['clip', 'videoprism'])
def zero_shot(request, tmp_path_factory):
    """An inferencer of a frame tower, and of a video tower; its video."""
    folder = tmp_path_factory.mktemp(request.param)
    config = write_zero_shot(folder, request.param)
    inferencer = GroundingInferencer(str(config), device='cpu', model_root=folder / 'models')
    inferencer.folder, inferencer.path, inferencer.video = folder, config, write_scene(folder)
    return inferencer


def test_three_calls_answer_without_a_checkpoint(zero_shot):
    video = zero_shot.encode(zero_shot.video)
    answers = zero_shot.ground(video, SENTENCES)
    assert answers == zero_shot(zero_shot.video, SENTENCES)
    for answer in answers:
        assert 2 <= len(answer['moments']) <= 5
        assert answer['scores'] == sorted(answer['scores'], reverse=True)
        assert all(0 <= start < end <= 24 for start, end in answer['moments'])
        assert answer['present'] == (answer['presence'] >= 0.5)
    assert len({tuple(answer['scores']) for answer in answers}) == 3


def test_scores_are_cosines_of_what_the_tower_gives(zero_shot):
    encoded = zero_shot.encode(zero_shot.video)
    tower = build_extractor(zero_shot.config.extractor, 'cpu')
    rows = torch.from_numpy(tower(zero_shot.video))
    pooled = zero_shot.pipeline(
        dict(features=rows.numpy(), video_id='v', duration=24.0, sentences=[])
    )
    clips = pooled['inputs'].unflatten(0, (8, 2)).mean(1)  # (8, D)
    grid, head = zero_shot.model.grid, zero_shot.model.head
    moments = torch.stack(
        [clips[a : b + 1].mean(0) for a, b in zip(grid.starts, grid.ends, strict=True)]
    )
    cosines = torch.cosine_similarity(
        moments.double(), tower.encode_sentences(SENTENCES[:1]).double()
    )
    expected = (head.scale * (cosines - head.center)).sigmoid()
    scores = zero_shot.score_moments(encoded, SENTENCES[:1])[0]
    assert torch.allclose(scores.double(), expected, atol=1e-5)


def test_the_tower_is_read_once_for_videos_and_sentences(zero_shot):
    assert zero_shot.extractor is zero_shot.model.tower
    other = GroundingInferencer(zero_shot.config, device='cpu')
    kind = type(other.model.tower)
    with mock.patch.object(
        kind, 'build_model', autospec=True, side_effect=kind.build_model
    ) as built:
        other(zero_shot.video, SENTENCES)
    assert built.call_count == 1


def test_a_video_shorter_than_the_towers_window_is_answered(zero_shot, tmp_path):
    with VideoWriter(tmp_path / 'short.mp4', 8) as video:
        for shade in (20, 120):
            video.add(torch.full((48, 64, 3), shade, dtype=torch.uint8).numpy())
    (answer,) = zero_shot(tmp_path / 'short.mp4', SENTENCES[0])
    assert probe_video(tmp_path / 'short.mp4').duration == 0.25
    assert all(0 <= start < end <= 0.25 + 1e-6 for start, end in answer['moments'])


def test_questions_are_rewritten_before_the_model_and_answered_under_their_own_words(zero_shot):
    asked = []

    def rewrite(sentence):
        asked.append(sentence)
        return dict(zip(('Wann?', '小狗'), SENTENCES, strict=False))[sentence]

    given = dict(device='cpu', model_root=zero_shot.folder / 'models')
    inferencer = GroundingInferencer(str(zero_shot.path), rewrite=rewrite, **given)
    answers = inferencer([zero_shot.video] * 2, ['Wann?', '小狗'])
    assert asked == ['Wann?', '小狗']  # an LLM's time is spent once
    for answer, plain in zip(answers[1], zero_shot(zero_shot.video, SENTENCES[:2]), strict=True):
        assert answer == plain | dict(sentence=answer['sentence'])
    assert [answer['sentence'] for answer in answers[0]] == ['Wann?', '小狗']
    for wrong, message in (
        ('', "'Wo', rewritten as '', is empty"),
        (None, "'Wo', rewritten as None, is no text"),
        ('...', r"'Wo' was rewritten as '\.\.\.', which holds no word"),
    ):
        inferencer = GroundingInferencer(str(zero_shot.path), rewrite=lambda _, w=wrong: w, **given)
        with pytest.raises(InputError, match=message):
            inferencer.check_sentences('Wo')


def test_the_towers_own_rewrite_is_asked_for_sentences_but_not_for_the_unrelated_ones(zero_shot):
    asked = []

    def rewrite(sentence):
        asked.append(sentence)
        return SENTENCES[0]

    config = copy.deepcopy(zero_shot.config)
    config.extractor.rewrite = config.model.tower.rewrite = rewrite
    inferencer = GroundingInferencer(config, device='cpu')
    (answer,) = inferencer(zero_shot.video, '小狗')
    assert asked == ['小狗']
    (plain,) = zero_shot(zero_shot.video, SENTENCES[0])
    assert answer == plain | dict(sentence='小狗')


def test_a_root_is_the_models_own_folder_or_holds_all_of_them(zero_shot, tmp_path, monkeypatch):
    name = zero_shot.config.extractor.model
    expected = zero_shot(zero_shot.video, SENTENCES)
    own = zero_shot.folder / 'models' / name
    (tmp_path / 'flat').mkdir()
    shutil.copytree(own, tmp_path / 'flat' / own.name)
    for root in (own, tmp_path / 'flat'):
        inferencer = GroundingInferencer(str(zero_shot.path), device='cpu', model_root=root)
        assert inferencer(zero_shot.video, SENTENCES) == expected
    monkeypatch.setenv('MMN_MODEL_ROOT', str(tmp_path / 'flat'))
    assert GroundingInferencer(str(zero_shot.path), device='cpu')(zero_shot.video, SENTENCES) == (
        expected
    )


def test_what_is_missing_is_said_with_where_it_was_looked_for(zero_shot, tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.delenv('MMN_MODEL_ROOT', raising=False)
    name = zero_shot.config.extractor.model
    for root, message in (
        (
            None,
            f"no model '{name}'.*no folder of models is given.*to a folder with {name} in it",
        ),
        (tmp_path, f"no model '{name}'.*{tmp_path} does not hold it"),
    ):
        inferencer = GroundingInferencer(str(zero_shot.path), device='cpu', model_root=root)
        with pytest.raises(DownloadError, match=message):
            inferencer(zero_shot.video, SENTENCES)
    with pytest.raises(InputError, match=r'model root .*absent is no folder'):
        GroundingInferencer(str(zero_shot.path), model_root=tmp_path / 'absent')


def test_a_folder_that_is_no_dual_tower_is_refused_by_name(zero_shot, tmp_path):
    root = write_text_tower(tmp_path / 'bert')
    inferencer = GroundingInferencer(str(zero_shot.path), device='cpu', model_root=root)
    with pytest.raises(InputError, match=r'no text side|neither frames nor videos'):
        inferencer(zero_shot.video, SENTENCES)


def test_a_saved_model_holds_no_tower_and_asks_for_it_at_a_sentence(zero_shot, tmp_path):
    zero_shot.save_pretrained(tmp_path / 'model')
    files = {path.name: path for path in (tmp_path / 'model').iterdir()}
    assert set(files) == {'config.json', 'model.safetensors', 'README.md'}
    assert all(path.stat().st_size < 10_000 for path in files.values())
    content = json.loads(files['config.json'].read_text())
    assert content['meta']['tower'] == zero_shot.model.tower.fingerprint
    assert str(zero_shot.folder) not in files['config.json'].read_text()
    card = files['README.md'].read_text()
    assert zero_shot.config.extractor.model in card
    assert 'TODO' not in card
    features = zero_shot.extractor(zero_shot.video)
    expected = zero_shot(features, SENTENCES, 24.0)
    again = GroundingInferencer.from_pretrained(tmp_path / 'model', device='cpu')
    encoded = again.encode(features, 24.0)  # without the tower, which is not found
    with pytest.raises(DownloadError):
        again.ground(encoded, SENTENCES)
    root = zero_shot.folder / 'models'
    again = GroundingInferencer.from_pretrained(tmp_path / 'model', device='cpu', model_root=root)
    assert again(features, SENTENCES, 24.0) == expected
    content['config']['model']['tower']['rewrite'] = 'os.getcwd'
    files['config.json'].write_text(json.dumps(content))
    with pytest.raises(InputError, match='foreign code'):
        GroundingInferencer.from_pretrained(tmp_path / 'model')


def test_a_saved_model_names_no_folder_of_this_machine(zero_shot, tmp_path):
    name = zero_shot.config.extractor.model
    folder = zero_shot.folder / 'models' / name
    config = copy.deepcopy(zero_shot.config)
    for part in (config.extractor, config.model.tower):
        part.update(model=str(folder), root=str(folder.parent))
    inferencer = GroundingInferencer(config, device='cpu')
    expected = inferencer(zero_shot.video, SENTENCES)
    made = dict(inferencer.extractor.fingerprint, config=config.extractor.to_dict())
    inferencer.meta['extractor'] = [made]  # as a training on its features leaves it
    inferencer.save_pretrained(tmp_path / 'model')
    for path in (tmp_path / 'model').iterdir():
        assert str(zero_shot.folder).encode() not in path.read_bytes()
    content = json.loads((tmp_path / 'model' / 'config.json').read_text())
    assert content['config']['model']['tower']['model'] == folder.name
    assert content['meta']['extractor'][0]['config']['model'] == folder.name
    assert inferencer.meta['extractor'] == [made]
    for root in (folder, folder.parent):
        again = GroundingInferencer.from_pretrained(
            tmp_path / 'model', device='cpu', model_root=root
        )
        assert again(zero_shot.video, SENTENCES) == expected
    again = GroundingInferencer.from_pretrained(tmp_path / 'model', device='cpu')
    with pytest.raises(DownloadError, match=f'MMN_MODEL_ROOT to a folder with {folder.name} in'):
        again(zero_shot.video, SENTENCES)


def test_another_tower_than_the_saved_models_is_refused(zero_shot, tmp_path):
    zero_shot.save_pretrained(tmp_path / 'model')
    path = tmp_path / 'model' / 'config.json'
    path.write_text(path.read_text().replace('sha256:', 'sha256:0'))
    root = zero_shot.folder / 'models'
    again = GroundingInferencer.from_pretrained(tmp_path / 'model', device='cpu', model_root=root)
    encoded = again.encode(zero_shot.video)
    with pytest.raises(InputError, match=r"checkpoint's tower and model\.tower do not belong"):
        again.ground(encoded, SENTENCES)


@pytest.mark.parametrize('sentence', ['...', '??!', '\ud800'])
def test_sentences_without_words_are_refused_before_the_video_costs_time(zero_shot, sentence):
    with (
        mock.patch.object(zero_shot.video_encoder, '_plan', side_effect=AssertionError),
        pytest.raises(InputError, match='holds'),
    ):
        zero_shot('absent.mp4', sentence)
    with pytest.raises(InputError, match='holds'):
        zero_shot.candidates('absent.mp4', sentence)


def test_a_threshold_that_is_no_presence_is_refused(zero_shot):
    for wrong in (95, float('nan'), -1.5):
        with pytest.raises(InputError, match=r'presence_threshold=.*; it must be from -1 to 1'):
            GroundingInferencer(str(zero_shot.path), presence_threshold=wrong)


def test_settings_that_cannot_be_used_are_named(zero_shot, inferencer, tmp_path):
    with pytest.raises(InputError, match=r'model root .* is of no use: neither'):
        with_model_root(Config(dict(inferencer.config)), tmp_path)
    asking = GroundingInferencer(zero_shot.config, device='cpu')
    asking.config.model.tower.rewrite = 'os.getcwd'
    with pytest.raises(InputError, match=r'model\.tower\.rewrite is a function'):
        asking.save_pretrained(tmp_path / 'out')


def test_a_trained_model_is_saved_without_its_tower_and_finds_it_in_a_root(tmp_path):
    models = tmp_path / 'models'
    tower = write_dual_tower(models / 'org' / 'clip', 'clip') | dict(model='org/clip')
    tower.pop('device')
    grounder = write_grounder(tmp_path, in_channels=12, extractor=tower)
    with grounder.config.open('a') as file:
        file.write(f'model.update(tower={tower!r}, head=dict(tower_weight=2.0))\n')
    options = dict(device='cpu', model_root=models)
    inferencer = GroundingInferencer(grounder.config, grounder.checkpoint, **options)
    assert inferencer.extractor is inferencer.model.tower
    inferencer.meta['tower'] = inferencer.model.tower.fingerprint  # as a training leaves it
    video = write_scene(tmp_path)
    answers = inferencer(video, SENTENCES[:1])
    inferencer.save_pretrained(tmp_path / 'saved')
    assert str(models) not in (tmp_path / 'saved' / 'config.json').read_text()
    moved = models.rename(tmp_path / 'elsewhere')
    saved = GroundingInferencer.from_pretrained(tmp_path / 'saved', device='cpu', model_root=moved)
    assert saved(video, SENTENCES[:1]) == answers
    write_dual_tower(tmp_path / 'other' / 'clip', 'clip', size=dict(shortest_edge=40))
    options['model_root'] = tmp_path / 'other'
    other = GroundingInferencer.from_pretrained(tmp_path / 'saved', **options)
    with pytest.raises(InputError, match="the checkpoint's tower"):
        other(video, SENTENCES[:1])
