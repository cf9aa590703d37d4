"""Towers trained on Shapes, and how the experiment with them counts and chooses."""

import json
import runpy
import sys

import numpy as np
import pytest
import torch
from helpers.run_tool import ROOT, output_of
from helpers.tiny_zero_shot import WHAT, build_zero_shot, video_showing
from mmaction.registry import MODELS
from mmengine.structures import InstanceData
from PIL import Image

from mmn_plugin.config import load_config
from mmn_plugin.features import extractor_config
from mmn_plugin.shapes import OPPOSITES, Event, ShapesCorpus, read_events, say_opposites
from mmn_plugin.structures import GroundingDataSample

TOOL = ROOT / 'tools/data/train_shapes_towers.py'
NAMES = ('frames', 'video')


@pytest.fixture(scope='module')
def tool():
    return runpy.run_path(str(TOOL))


@pytest.fixture(scope='module')
def experiment():
    runpy.run_path(str(ROOT / 'tools/reproduce.py'))
    return sys.modules['reproduction.towers']


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes') / 'corpus'
    ShapesCorpus(folder, 10, seed=3, size=64).write(workers=0)
    return folder


def short_config(name):
    config = load_config(ROOT / f'configs/shapes_towers/{name}.py')
    config.training.update(steps=2, videos=2, warmup=1)
    return config


@pytest.mark.parametrize('name', NAMES)
def test_a_trained_tower_sees_what_it_saw_in_training(tool, corpus, tmp_path, name):
    config = short_config(name)
    said = tool['train_tower'](config, corpus, tmp_path)
    assert 'of the validation sentences find their own moment' in said
    settings = dict(config.extractor, model=str(tmp_path), device='cpu')
    tower = MODELS.build(settings)
    entry = next(iter(json.loads((corpus / 'annotations/val.json').read_text()).values()))
    path = next(corpus.glob('videos/*8.mp4'))  # that of validation
    rows = torch.nn.functional.normalize(torch.from_numpy(tower(path)), dim=-1)
    fps = config.extractor['fps']
    (video,) = tool['read_videos'](corpus, 'val', tower.preparation, fps)
    windows = tool['Windows'](config.extractor, 0, np.random.default_rng(0))
    trainer = tool['Trainer'](tower.model, tower.tokenizer, tower.preparation, config.training)
    middle = [windows.at(video, row - windows.length // 2) for row in range(16, 20)]
    with torch.no_grad():
        expected = trainer.embed_windows(middle)
        sentences = trainer.embed_sentences(entry['sentences'])
    torch.testing.assert_close(rows[16:20], expected, atol=1e-5, rtol=0)
    found = tower.encode_sentences(entry['sentences'])
    torch.testing.assert_close(found, sentences, atol=1e-5, rtol=0)


def test_the_same_seed_trains_the_same_tower(tool, corpus, tmp_path):
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        tool['train_tower'](short_config('frames'), corpus, tmp_path / folder)
    first, second = ((tmp_path / f / 'model.safetensors').read_bytes() for f in ('a', 'b'))
    assert first == second


def test_training_needs_a_corpus(tmp_path):
    arguments = ('data/train_shapes_towers.py', ROOT / 'configs/shapes_towers/frames.py')
    output = output_of(*arguments, '--corpus', tmp_path, '--out', tmp_path / 'out', code=1)
    assert 'make it with tools/data/make_shapes.py' in output.splitlines()[-1]


def test_sentences_of_equal_text_are_no_negatives(tool, corpus):
    config = short_config('frames')
    tokenizer = tool['make_tokenizer'](corpus / 'vocab.txt')
    model = tool['make_model'](config.architecture, tokenizer)
    preparation = tool['FramePreparation'].of_processor(config.processor, 'it')
    trainer = tool['Trainer'](model, tokenizer, preparation, config.training)
    windows = [torch.full((1, 3, 48, 48), value, dtype=torch.uint8) for value in (0, 255)]
    assert trainer.step(windows, ['the red ball', 'the red ball']) == 0
    assert trainer.step(windows, ['the red ball', 'a block']) > 0
    assert trainer.step(windows[:1], ['a block'], ['a block']) == 0
    assert trainer.step(windows[:1], ['a block'], ['the red ball']) > 0


def test_opposite_sentences_are_of_the_same_look_and_of_other_moments(tool, corpus):
    videos = [
        tool['Video'](None, [], entry['sentences'], read_events(corpus, 'train')[name])
        for name, entry in json.loads((corpus / 'annotations/train.json').read_text()).items()
    ]
    said = {
        text: event
        for video in videos
        for event, text in zip(video.events, video.sentences, strict=True)
    }
    opposites, found = tool['OppositeSentences'](videos, np.random.default_rng(0)), 0
    for video in videos:
        wanted = {(*event.look, OPPOSITES.get(event.action)) for event in video.events}
        for text in opposites.beside(video):
            assert said[text].combination in wanted
            found += 1
    assert found


def test_training_reports_own_moments_and_motions_told_from_their_opposites(tool, corpus):
    config = short_config('frames')
    tokenizer = tool['make_tokenizer'](corpus / 'vocab.txt')
    model = tool['make_model'](config.architecture, tokenizer)
    preparation = tool['FramePreparation'].of_processor(config.processor, 'it')
    trainer = tool['Trainer'](model, tokenizer, preparation, config.training)
    events = [
        Event('red', 'circle', 'left', 0, 4),
        Event('blue', 'square', 'grow', 5, 9),
        Event('blue', 'square', 'blink', 10, 14),
    ]
    sentences = ['a red ball goes left', 'a blue box grows', 'a blue box blinks']
    moments, vectors = torch.eye(len(events)), {}
    for event, text, moment in zip(events, sentences, moments, strict=True):
        vectors[text] = moment
        if event.action in OPPOSITES:
            right, wrong = say_opposites(0, event)
            vectors |= {right: moment, wrong: -moment}
    trainer.embed_sentences = lambda texts: torch.stack([vectors[text] for text in texts])
    trainer._embed_moments = lambda video, windows: moments
    videos = [tool['Video'](None, [], sentences, events)]
    said = trainer.report(videos, None)
    assert said.startswith('100.0% of the validation sentences')
    assert '100.0% of the motions' in said
    trainer._embed_moments = lambda video, windows: -moments
    assert '0.0% of the motions' in trainer.report(videos, None)


def test_position_embeddings_of_a_video_tower_are_drawn_as_wide_as_asked(tool, corpus):
    config, tokenizer = short_config('video'), tool['make_tokenizer'](corpus / 'vocab.txt')
    model = tool['make_model'](config.architecture, tokenizer, 2.0)
    found = {
        name: weight.std().item()
        for name, weight in model.named_parameters()
        if name.endswith('position_embeddings')
    }
    assert len(found) == 2  # of places and of frames
    assert found == pytest.approx(dict.fromkeys(found, 2.0), rel=0.15)


def test_windows_lie_inside_their_moments_and_move_by_a_few_pixels(tool):
    frames = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(100, 3, 8, 8)
    video = tool['Video'](frames, [(20, 48), (90, 95)], ['a', 'b'])
    windows = tool['Windows'](dict(clip_len=5, frame_interval=5), 2, np.random.default_rng(0))
    for _ in range(20):
        inside, short = windows.inside(video)
        assert inside.shape == (5, 3, 8, 8)
        assert inside[:, 0, 0, 0].diff().tolist() == [5] * 4
        assert 20 <= inside.min() <= inside.max() < 48
        assert short[0].min() == 90  # a moment shorter than the window: from its beginning
    picture = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(100, 3, 8, 8)
    video = tool['Video'](picture, [(20, 48)], ['a'])
    corners = {int(windows.inside(video)[0][0, 0, 4, 4]) for _ in range(300)}
    assert corners == {36 + 8 * dy + dx for dy in range(-2, 3) for dx in range(-2, 3)}


def test_shuffled_words_are_the_same_ones_in_one_other_order(experiment):
    sentence = 'watch the jade box drift to the left'
    assert experiment.shuffled(sentence) != sentence
    assert sorted(experiment.shuffled(sentence).split()) == sorted(sentence.split())
    assert experiment.shuffled(sentence) == experiment.shuffled(sentence)


def test_a_score_is_chosen_by_the_recall_that_is_reported(experiment, monkeypatch):
    model = build_zero_shot(score=dict(type='contrast'))
    dataset = [made_up(f'cat {what}', place) for place, what in enumerate(WHAT)]
    monkeypatch.setattr(experiment, 'build_dataset', lambda cfg, split: dataset)
    monkeypatch.setattr(experiment, 'LENGTHS', (-1.0, 0.0, 1.0))
    head, looked = experiment.looked_at((None, model), 'val')
    best = experiment.choose_score(head, looked, 'contrast')
    assert best['settings_tried'] == 3 * len(experiment.SCORES['contrast'])
    found = experiment.figures(
        experiment.set_score(head, best), looked, {'sings': {'cat sings': [0]}}
    )
    assert found['R1@0.5'] == best['R1@0.5']
    assert found['sings/num_sentences'] == 1
    worst = experiment.set_score(head, best | dict(length_weight=1.0))
    assert experiment.figures(worst, looked, {})['R1@0.5'] < best['R1@0.5']


def made_up(sentence, place):
    """A video of 24 s that shows a sentence for some seconds, as a dataset gives it."""
    about = dict(video_id=sentence, duration=24.0, sentences=[sentence], sentence_index=[0])
    sample = GroundingDataSample(metainfo=about)
    sample.gt_instances = InstanceData(moments=torch.tensor([[3.0 * place, 3.0 * place + 6.0]]))
    rows = video_showing(sentence, 2 * place, 2 * place + 4, rows=16, seed=place)
    return dict(inputs=rows, data_samples=sample)


def test_mmn_has_the_extractor_of_its_tower_and_options_change_it_to_the_other(experiment):
    video = extractor_config('zero_shot_shapes_video.py')
    assert extractor_config('mmn_shapes_tower.py') == video
    assert load_config('mmn_shapes_tower.py').model.tower == video
    assert experiment.mmn_options('video') == ()
    values = experiment.parsed(experiment.mmn_options('frames'))
    config = load_config('mmn_shapes_tower.py', values)
    frames = MODELS.build(extractor_config('zero_shot_shapes_frames.py'))
    for settings in (config.extractor, config.model.tower):
        tower = MODELS.build(settings)
        assert (tower.name, tower.fps, tower.stride) == (frames.name, frames.fps, frames.stride)
        assert settings.clip_len is None
    assert config.val_dataloader.dataset.data_prefix.features == 'towers/frames.h5'


def test_the_table_and_the_picture_show_every_action(experiment, tmp_path):
    def row(value):
        named = [f'R1@{t}' for t in experiment.THRESHOLDS]
        named += [f'{action}/R1@0.5' for action in experiment.ACTIONS]
        return dict.fromkeys(named, value)

    tried = {kind: dict(score=dict(type=kind), length_weight=0.1) for kind in experiment.SCORES}
    chosen = {
        name: {
            kind: setting | {'R1@0.5': place} for place, (kind, setting) in enumerate(tried.items())
        }
        for name in NAMES
    }
    rows = {experiment.CHANCE: [row(9.0)]}
    rows |= {f'{label}, rise': [row(30.0)] for label in experiment.TOWERS.values()}
    for name, label in experiment.TOWERS.items():
        chosen[f'mmn_{name}'] = dict(tower_weight=2.0, tried={'0.0': 1.0, '2.0': 3.5})
        rows |= {
            f'MMN on the {label}{with_}': [row(60.0), row(62.0)]
            for with_ in ('', ' with its space')
        }
    opposites = {name: dict.fromkeys(experiment.OPPOSITES, 51.2) for name in NAMES}
    result = dict(rows=rows, chosen=chosen, opposites=opposites)
    text = experiment.render_shapes_towers(result)
    assert '| video tower | 51.2 |' in text
    assert '| MMN on the video tower | 61.0 ± 1.4 |' in text
    assert '| MMN on the frame tower with its space | tower_weight 2 |  | 3.5 |' in text
    experiment.draw(result, tmp_path / 'picture.png')
    with Image.open(tmp_path / 'picture.png') as picture:
        assert picture.size == (900, 560)
        assert len(picture.getcolors(1 << 20)) > 5


def test_what_was_chosen_on_validation_is_no_end_of_what_was_tried(experiment):
    chosen = json.loads((ROOT / 'docs/results/shapes_towers.json').read_text())['chosen']
    for name in NAMES:
        for kind, setting in chosen[name].items():
            assert min(experiment.LENGTHS) < setting['length_weight'] < max(experiment.LENGTHS)
            weights = {key: v for key, v in setting['score'].items() if key in ('weight', 'rise')}
            for key, value in weights.items():
                assert value < max(tried[key] for tried in experiment.SCORES[kind])
        tried = [float(weight) for weight in chosen[f'mmn_{name}']['tried']]
        assert chosen[f'mmn_{name}']['tower_weight'] < max(tried)


def test_the_configs_hold_what_was_chosen_on_validation():
    result = json.loads((ROOT / 'docs/results/shapes_towers.json').read_text())
    for name in NAMES:
        best = max(result['chosen'][name].values(), key=lambda setting: setting['R1@0.5'])
        head = load_config(f'zero_shot_shapes_{name}.py').model.head
        assert (head.score, head.length_weight) == (best['score'], best['length_weight'])
    space = result['chosen']['mmn_video']
    assert load_config('mmn_shapes_tower.py').model.head.tower_weight == space['tower_weight']
    assert space['tried'][str(space['tower_weight'])] == max(space['tried'].values())
