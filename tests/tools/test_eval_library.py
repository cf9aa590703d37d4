"""eval_library.py: models of every kind are searched, and settings chosen."""

import json
from types import SimpleNamespace

import pytest
from helpers.run_tool import ROOT, output_of
from helpers.tiny_corpus import write_config, write_corpus
from helpers.tiny_grounder import save_checkpoint
from helpers.tiny_weak import write_weak_config
from helpers.tiny_zero_shot import mark_features, write_zero_shot_config

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.config import build_dataset
from mmn_plugin.library import MomentLibrary

TOOL = 'analysis_tools/eval_library.py'
TOWER = """
custom_imports = dict(imports=['mmn_plugin', 'helpers.stub_tower'])
model['tower'] = dict(type='StubTower')
model['head'] = dict(tower_weight=1.0)
library = dict(score_power=4.0, tower_weight=2.0)
"""


@pytest.fixture(scope='module')
def kinds(tmp_path_factory):
    """Corpus, and config and checkpoint of each kind of model."""
    folder = tmp_path_factory.mktemp('library')
    corpus = write_corpus(folder / 'corpus', train=3, test=6)
    mark_features(corpus)
    configs = dict(
        moments=write_config(folder / 'moments.py', corpus, extra=TOWER),
        weak=write_weak_config(folder / 'weak.py', corpus),
        zero_shot=write_zero_shot_config(folder / 'zero_shot.py', corpus),
    )
    given = {
        name: [config] if name == 'zero_shot' else [config, save_checkpoint(config, folder / name)]
        for name, config in configs.items()
    }
    videos = json.loads((corpus / 'test.json').read_text())
    sentences = sum(len(video['sentences']) for video in videos.values())
    return SimpleNamespace(given=given, videos=videos, sentences=sentences)


def evaluated(folder, *arguments):
    output = output_of(TOOL, *arguments, '--json', folder / 'figures.json')
    return json.loads((folder / 'figures.json').read_text()), output


@pytest.mark.parametrize('kind', ['moments', 'weak', 'zero_shot'])
def test_a_model_is_searched_with_the_settings_that_validation_chose(kinds, kind, tmp_path):
    found, output = evaluated(tmp_path, *kinds.given[kind], '--choose')
    assert (found['videos'], found['sentences'], found['split']) == (6, kinds.sentences, 'test')
    assert found['moments'] == 6 * (136 if kind == 'weak' else 36)
    figures = found['figures']
    assert figures['R100@0.5'] >= figures['R10@0.5'] >= figures['R1@0.5']
    assert figures['VR10'] == figures['VR100'] == 100  # there are six videos
    assert figures['own/R100@0.5'] >= figures['own/R1@0.5']
    trials = found['chosen']['tried']
    assert found['chosen']['quality'] == max(trial['quality'] for trial in trials)
    assert len(trials) == dict(moments=20, weak=6, zero_shot=9)[kind]
    # the validation split of these configs is their test split, and what was chosen was used
    again = sum(figures[f'R{n}@0.5'] for n in (1, 10, 100)) / 3
    assert again == pytest.approx(found['chosen']['quality'])
    assert 'one right answer: R1@0.5' in output


def test_settings_of_the_config_are_used_and_further_videos_are_searched(kinds, tmp_path):
    for kind in ('weak', 'moments'):  # training without timestamps, and with
        config, checkpoint = kinds.given[kind]
        first, _ = evaluated(tmp_path, config, checkpoint, '--also', 'train')
        assert (first['videos'], first['sentences']) == (9, kinds.sentences)
    config_alone, _ = evaluated(tmp_path, config, checkpoint)
    assert config_alone['moments'] == 6 * 36
    options = ('--cfg-options', 'library.tower_weight=1000.0')
    other, _ = evaluated(tmp_path, config, checkpoint, *options)
    assert other['figures'] != config_alone['figures']


def test_sentences_that_do_not_occur_are_left_out_and_counted(kinds, tmp_path):
    config, checkpoint = kinds.given['moments']
    videos = json.loads(json.dumps(kinds.videos))
    first = next(iter(videos.values()))
    start, end = first['timestamps'][0]
    first['sentences'] += ['the box', 'a person opens the door']
    first['timestamps'] += [[], [[start, end], [0.0, 1.0]]]
    (tmp_path / 'windows.json').write_text(json.dumps(videos))
    options = ('--cfg-options', f'test_dataloader.dataset.ann_file={tmp_path}/windows.json')
    found, output = evaluated(tmp_path, config, checkpoint, '--tvr', tmp_path / 'hits', *options)
    assert (found['sentences'], found['absent']) == (kinds.sentences + 1, 1)
    assert '1 sentences that do not occur in their video are left out' in output
    rows = json.loads((tmp_path / 'hits').read_text())['VCMR']
    assert len(rows) == kinds.sentences + 1


def test_hits_are_written_as_tvr_has_them(kinds, tmp_path):
    output_of(TOOL, *kinds.given['moments'], '--tvr', tmp_path / 'hits.json')
    content = json.loads((tmp_path / 'hits.json').read_text())
    assert sorted(content['video2idx']) == sorted(kinds.videos)
    texts = [text for video in kinds.videos.values() for text in video['sentences']]
    for task in ('VCMR', 'SVMR', 'VR'):
        assert [row['desc'] for row in content[task]] == texts
    scores = [row[3] for row in content['VCMR'][0]['predictions']]
    assert scores == sorted(scores, reverse=True)
    best = content['VCMR'][0]['predictions'][0]
    assert content['VR'][0]['predictions'][0] == [best[0], 0, 0, best[3]]


def test_what_cannot_be_evaluated_is_said_in_one_line(kinds, tmp_path):
    config, checkpoint = kinds.given['moments']
    absent = tmp_path / 'absent.json'
    nowhere = {
        name: dict(video, timestamps=[[]] * len(video['sentences']))
        for name, video in kinds.videos.items()
    }
    absent.write_text(json.dumps(nowhere))
    absent = f'test_dataloader.dataset.ann_file={absent}'
    for message, arguments in (
        ('only with a checkpoint', [config]),
        ('score_power=-1', [config, checkpoint, '--cfg-options', 'library.score_power=-1']),
        ('none of the sentences occurs', [config, checkpoint, '--cfg-options', absent]),
        ('no corpus of Shapes', [config, checkpoint, '--shapes', ROOT / 'docs']),
        ('searched as it is', [config, checkpoint, '--library', ROOT / 'docs']),
    ):
        output = output_of(TOOL, *arguments, code=1)
        assert message in output.splitlines()[-1], output


def test_a_library_on_disk_finds_what_all_products_find(kinds, tmp_path, monkeypatch):
    config, checkpoint = kinds.given['weak']
    everything, _ = evaluated(tmp_path, config, checkpoint)
    monkeypatch.setattr('os.fsync', lambda handle: None)
    model = GroundingInferencer(config, checkpoint, 'cpu')
    library = MomentLibrary.create(tmp_path / 'LIB', model, dtype='float32')
    encoder = model.video_encoder
    dataset = build_dataset(model.config, 'test')
    for packed in dataset:  # as many segments as videos
        library.add_encoded([encoder.encode_pooled(packed['inputs'], packed['data_samples'])])
    found, _ = evaluated(tmp_path, config, '--library', tmp_path / 'LIB')
    same = {name: value for name, value in everything['figures'].items() if 'own/' not in name}
    assert found['figures'] == same
    assert found['moments'] == everything['moments']
