"""What a mistake in a config, a checkpoint or an option looks like on the command line."""
import argparse

import pytest
import torch
from helpers.tiny_corpus import write_config, write_corpus
from mmaction.registry import MODELS
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner

from mmn_plugin.engine.runner import (
    load_config,
    plain_errors,
    require_checkpoint_content,
    require_device,
    whole_number,
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp('command_line') / 'corpus', 2, 2).parent


def printed(capsys, action) -> str:
    """The one line that `action` ends in."""
    with pytest.raises(SystemExit) as stop, plain_errors():
        action()
    assert stop.value.code == 1
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 1
    return text


@pytest.mark.parametrize(('text', 'message'), [
    ("_base_ = ['absent.py']\n", 'absent.py, which does not exist'),
    ("_base_ = 'mmn_plugin::absent.py'\n", "no config 'absent.py'"),
    ('a = absent\n', "cannot be run: name 'absent' is not defined"),
    ("custom_imports = dict(imports=['absent_module'])\n", "['absent_module']}; the folder of"),
    ('a = = 1\n', 'is not valid Python')])
def test_a_config_that_cannot_be_read_is_one_line(tmp_path, capsys, text, message):
    path = tmp_path / 'my_config.py'
    path.write_text(text)
    output = printed(capsys, lambda: load_config(str(path)))
    assert message in output
    assert 'my_config.py' in output or '::' in text


def test_a_config_that_is_not_there_names_both_places_looked_at(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = printed(capsys, lambda: load_config('absent.py'))
    assert 'mmn_charades.py' in output
    assert f"nor does 'absent.py' lie in the current folder, {tmp_path}" in output


@pytest.mark.parametrize('step', [Runner.from_cfg, lambda cfg: cfg.model])
def test_an_absent_setting_is_named_with_its_config(tmp_path, capsys, step):
    path = tmp_path / 'my_config.py'
    path.write_text('work_dir = "x"\nlog_level = "INFO"\n')

    def run():
        cfg = load_config(str(path))
        step(cfg)

    assert f'{path} lacks the setting `model`' in printed(capsys, run)


def test_an_absent_setting_of_a_part_is_named_with_its_path(tmp_path, capsys):
    path = tmp_path / 'my_config.py'
    path.write_text('loaders = [dict(dataset=dict(a=1))]\n')

    def run():
        cfg = load_config(str(path))
        return cfg.loaders[0].dataset.pipeline

    assert f'{path} lacks the setting `loaders.0.dataset.pipeline`' in printed(capsys, run)


@pytest.mark.parametrize(('extra', 'named'), [
    ("model['foo'] = 1\n", "'MMN'"),
    ("model['backbone']['foo'] = 1\n", "'ClipEncoder'"),
    ("model['head'] = dict(foo=1)\n", "'MutualMatchingHead'")])
def test_a_setting_that_a_class_does_not_take_is_one_line(folder, capsys, extra, named):
    config = load_config(str(write_config(folder / 'mistake.py', folder / 'corpus', extra=extra)))
    output = printed(capsys, lambda: MODELS.build(config.model))
    assert named in output
    assert "unexpected keyword argument 'foo'" in output


def test_a_needed_setting_that_is_absent_is_one_line(capsys):
    output = printed(capsys, lambda: MODELS.build(dict(type='ClipEncoder')))
    assert "'ClipEncoder'" in output
    assert 'in_channels' in output


@pytest.mark.parametrize(('optimizer', 'message'), [
    (dict(type='Absent', lr=1.), "type of the config is 'Absent'"),
    (dict(type='AdamW', foo=1.), "AdamW.__init__() got an unexpected keyword argument 'foo'")])
def test_a_mistake_in_the_optimiser_is_one_line(capsys, optimizer, message):
    settings = dict(type='OptimWrapper', optimizer=optimizer,
                    paramwise_cfg=dict(custom_keys=dict(bert=dict(lr_mult=.1))))
    output = printed(capsys, lambda: build_optim_wrapper(torch.nn.Linear(1, 1), settings))
    assert message in output


def test_a_type_error_of_another_kind_is_not_hidden():
    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            len(3)

    MODELS.register_module(name='BrokenForTest', module=Broken, force=True)
    with pytest.raises(TypeError, match='has no len'), plain_errors():
        MODELS.build(dict(type='BrokenForTest'))
    with pytest.raises(TypeError, match='unexpected keyword'), plain_errors():
        Broken(foo=1)  # not from a config
    with pytest.raises(AttributeError, match='absent'), plain_errors():
        _ = Broken.absent


@pytest.mark.parametrize(('content', 'message'), [
    ([1, 2], 'bad.pth holds a list and is no checkpoint'),
    (dict(state_dict=[1]), 'bad.pth is no checkpoint'),
    ({3: 1}, 'bad.pth is no checkpoint'),
    (dict(state_dict={}, meta=None), "bad.pth is a damaged checkpoint: its 'meta' is None")])
def test_what_is_no_checkpoint_is_refused_by_name(content, message):
    with pytest.raises(ValueError, match=message):
        require_checkpoint_content(content, 'bad.pth')


def test_the_forms_of_a_checkpoint_pass():
    for content in (dict(state_dict={}, meta={}), dict(state_dict={}), dict(weight=1)):
        require_checkpoint_content(content, 'good.pth')


@pytest.mark.parametrize('name', ['cuda:99', 'nonsense'])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(ValueError, match=f"the device '{name}' cannot be used here: ."):
        require_device(name)
    assert require_device('cpu') == 'cpu'


def test_a_number_of_workers_is_0_or_more():
    assert [whole_number('0'), whole_number('3')] == [0, 3]
    for text in ('-1', '1.5', 'two'):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not a whole number"):
            whole_number(text)
