"""Options of the command line that would change nothing."""

import pytest
from helpers.run_tool import output_of, run_tool
from helpers.tiny_corpus import write_config, write_corpus
from mmengine.config import Config

from mmn_plugin.config import idle_options, load_config
from mmn_plugin.files import config_root


@pytest.fixture(scope='module')
def config():
    return load_config('mmn_tacos.py')


IDLE = {
    'train_dataloder.batch_size': 'train_dataloader',
    'lod_from': 'load_from',
    'lr': 'optim_wrapper.optimizer.lr',  # of this name, elsewhere
    'grid.num_clips': 'model.grid',
    'batch_size': 'train_dataloader.batch_size` or `val_dataloader.batch_size',
    'something_else': None,
    'auto_scale_lr.base_batchsize': 'auto_scale_lr.base_batch_size',
    'env_cfg.cudnn_bench': 'env_cfg.cudnn_benchmark',
    'optim_wrapper.clip_grad.max_nrm': 'optim_wrapper.clip_grad.max_norm',
    'train_dataloader.dataset.data_prefix.feature': 'train_dataloader.dataset.data_prefix.features',
    'optim_wrapper.paramwise_cfg.custom_keys.bert.lr_mul': (
        'optim_wrapper.paramwise_cfg.custom_keys.bert.lr_mult'
    ),
}


def test_a_key_that_nothing_reads_is_named_with_the_nearest(config):
    for option, nearest in IDLE.items():
        (message,) = idle_options(config, {option: 1})
        assert message.startswith(f'--cfg-options {option}: ')
        assert 'has no setting' in message
        assert (f'did you mean `{nearest}' in message) == (nearest is not None), message
    assert 'did you mean `model`?' in idle_options(Config(dict(model=dict())), {'modle.a': 1})[0]


READ = [
    *(
        {name: 1}
        for name in (
            'train_cfg.max_epochs',
            'train_cfg.val_begin',
            'load_from',
            'sync_bn',
            'experiment_name',
            'train_dataloader.prefetch_factor',
            'optim_wrapper.accumulative_counts',
            'env_cfg.dist_cfg.timeout',
            'env_cfg.resource_limit',
            'randomness.deterministic',
            'optim_wrapper.clip_grad.norm_type',
            'auto_scale_lr.enable',
            'optim_wrapper.paramwise_cfg.custom_keys.neck.lr_mult',
            'model.head.top_n',
            'param_scheduler.0.gamma',
            'visualizer.vis_backends.0.type',
            'library.score_power',
        )
    ),
    {'default_hooks.mine.type': 'MyHook', 'default_hooks.mine.interval': 1},
]


def test_a_setting_that_is_read_is_no_doubt(config):
    assert [options for options in READ if idle_options(config, options)] == []


def test_a_variable_that_the_config_has_used_up_is_named_with_what_was_made_of_it():
    (message,) = idle_options(load_config('mmn_shapes.py'), {'nms_threshold': 0.3})
    assert '`nms_threshold` is a variable, which the config used when it was read' in message
    assert 'did you mean `model.head.nms_threshold`' in message


def test_an_option_of_a_tower_holds_for_its_videos_and_its_sentences():
    name = 'zero_shot_videoprism.py'
    for option in ('extractor.revision', 'model.tower.revision'):
        config = load_config(name, {option: 'main'}, warn=pytest.fail)
        assert config.extractor == config.model.tower
        assert config.extractor.revision == 'main'
    both = {'extractor.fps': 2.0, 'model.tower.fps': 4.0}
    config = load_config(name, both, warn=pytest.fail)
    assert (config.extractor.fps, config.model.tower.fps) == (2.0, 4.0)
    config = load_config('mmn_shapes.py', {'extractor.fps': 2.0}, warn=pytest.fail)
    assert 'tower' not in config.model


def test_two_revisions_of_a_tower_are_refused_with_both_settings(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text("_base_ = 'mmn_plugin::zero_shot_clip.py'\nextractor = dict(revision='a')\n")
    with pytest.raises(
        ValueError, match=r"extractor\.revision='a' and model\.tower\.revision=None"
    ):
        load_config(path)
    assert load_config(path, {'model.tower.revision': 'a'}).model.tower.revision == 'a'


@pytest.fixture(scope='module')
def configs():
    return {path.name: load_config(path) for path in sorted(config_root().glob('*.py'))}


def test_every_setting_of_every_config_is_read_or_known_as_a_variable(configs):
    for name, config in configs.items():
        for message in idle_options(config, dict(config)):
            assert 'is a variable' in message, (name, message)


def test_every_config_has_all_or_nothing_of_training_validation_and_test(configs):
    """MMEngine's runner refuses a part, whatever it is asked to do."""
    last = dict(train='optim_wrapper', val='val_evaluator', test='test_evaluator')
    for name, config in configs.items():
        for split, key in last.items():
            keys = (f'{split}_dataloader', f'{split}_cfg', key)
            assert len({config.get(key) is None for key in keys}) == 1, (name, keys)


def test_tools_print_the_doubt_once_and_a_run_logs_it(tmp_path, capsys, monkeypatch):
    config = write_config(tmp_path / 'tiny.py', write_corpus(tmp_path / 'corpus', 2, 2), epochs=1)
    doubt = '--cfg-options train_cgf.max_epochs: the config has no setting `train_cgf`'
    option = '--cfg-options train_cgf.max_epochs=7'
    _, output = run_tool(f'analysis_tools/print_config.py {{}} {option}', config)
    assert output.count(f'Warning: {doubt}') == 1
    line = f'train.py {{}} --work-dir {{}} {option}'
    output = output_of(line, config, tmp_path / 'work')
    assert output.count(doubt) == 1
    (log,) = (tmp_path / 'work').glob('*/*.log')
    assert f'WARNING - {doubt}' in log.read_text()
    # where there is no Runner, and no log
    output = output_of(line, config, tmp_path / 'work', 'model.backbone.foo=1', code=1)
    assert output.count(f'Warning: {doubt}') == 1
    for rank, count in (('0', 1), ('1', 0)):
        monkeypatch.setenv('RANK', rank)
        load_config(str(config), {'train_cgf.max_epochs': 7})
        assert capsys.readouterr().err.count(doubt) == count
