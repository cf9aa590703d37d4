"""Test, check and training of a model without weights, from a config."""

import json

import h5py
import pytest
from helpers.run_tool import output_of
from helpers.tiny_corpus import write_corpus
from helpers.tiny_models import batch_of
from helpers.tiny_zero_shot import build_zero_shot, mark_features, write_zero_shot_config
from mmengine.model import is_model_wrapper

from mmn_plugin.cli.main import main
from mmn_plugin.config import load_config
from mmn_plugin.engine import build_runner
from mmn_plugin.engine.dist import ModelWithoutParameters


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A config of the tiny corpus, whose features are of the stub tower; the current folder."""
    monkeypatch.chdir(tmp_path)
    corpus = write_corpus(tmp_path / 'corpus')
    mark_features(corpus)
    return write_zero_shot_config(tmp_path / 'zero.py', corpus)


def test_a_test_needs_no_checkpoint_and_a_training_is_refused(config, tmp_path):
    output = output_of('test.py', config, '--dump', 'answers.json')
    assert 'grounding/R1@0.5' in output
    answers = json.loads((tmp_path / 'answers.json').read_text())['videos']
    for video in answers.values():
        for sentence in video['sentences']:
            assert sentence['moments']
            assert all(0 < score <= 1 for score in sentence['scores'])
    output = output_of('train.py', config, code=1)
    assert 'zero.py is of a model without weights to train: test it' in output
    output = output_of('test.py', 'mmn_tacos.py', code=1)
    assert 'give a checkpoint' in output


def test_features_of_another_tower_end_a_test(config):
    mark_features(config.parent / 'corpus', seed=1)
    output = output_of('test.py', config, code=1)
    assert 'model.tower and' in output
    assert 'features.h5 do not belong together' in output
    assert 'seed 0, here 1' in output


def test_sentences_are_checked_by_the_tower(config, capsys):
    assert main(['check', str(config)]) == 0
    path = config.parent / 'corpus' / 'test.json'
    videos = json.loads(path.read_text())
    next(iter(videos.values()))['sentences'][0] = '...'
    path.write_text(json.dumps(videos))
    assert main(['check', str(config)]) == 1
    assert 'sentence without a known word' in capsys.readouterr().out
    output = output_of('test.py', config, code=1)
    assert "('...'): holds no word" in output


def test_features_of_another_size_are_named(config):
    with h5py.File(config.parent / 'corpus' / 'features.h5', 'a') as file:
        for name in [*file]:
            rows = file[name][:, :5]
            del file[name]
            file[name] = rows
        file.attrs.clear()
    output = output_of('test.py', config, code=1)
    assert 'features of size 5' in output


def test_several_processes_test_a_model_that_has_no_parameters(config):
    settings = load_config(config)
    settings.work_dir, settings.experiment_name = str(config.parent / 'work'), 'no_parameters'
    runner = build_runner(settings, [])  # DistributedDataParallel would refuse it
    assert runner.cfg.model_wrapper_cfg.type == 'ModelWithoutParameters'
    wrapped = ModelWithoutParameters(build_zero_shot())
    assert is_model_wrapper(wrapped)
    batch = batch_of(wrapped.module)
    found = wrapped.test_step(dict(inputs=batch['inputs'], data_samples=batch['data_samples']))
    assert [sample.pred_instances.moments.shape for sample in found] == [(2, 5, 2), (1, 5, 2)]
