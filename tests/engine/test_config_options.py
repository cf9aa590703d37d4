"""Options of the command line that would change nothing."""

import pytest
from helpers.run_tool import run_tool
from helpers.tiny_corpus import write_config, write_corpus
from mmengine.config import Config

from mmn_plugin.config import idle_options, load_config
from mmn_plugin.files import config_root


@pytest.fixture(scope='module')
def config():
    return load_config('mmn_tacos.py')


@pytest.mark.parametrize(
    ('option', 'nearest'),
    [
        ('train_dataloder.batch_size', 'train_dataloader'),
        ('lod_from', 'load_from'),
        ('randomnes.seed', 'randomness'),
        ('lr', 'optim_wrapper.optimizer.lr'),  # of this name, elsewhere
        ('grid.num_clips', 'model.grid'),
        ('batch_size', 'train_dataloader.batch_size` or `val_dataloader.batch_size'),
        ('something_else', None),
        ('auto_scale_lr.base_batchsize', 'auto_scale_lr.base_batch_size'),
        ('env_cfg.cudnn_bench', 'env_cfg.cudnn_benchmark'),
        ('optim_wrapper.clip_grad.max_nrm', 'optim_wrapper.clip_grad.max_norm'),
        (
            'train_dataloader.dataset.data_prefix.feature',
            'train_dataloader.dataset.data_prefix.features',
        ),
        (
            'optim_wrapper.paramwise_cfg.norm_decay_mul',
            'optim_wrapper.paramwise_cfg.norm_decay_mult',
        ),
        (
            'optim_wrapper.paramwise_cfg.custom_keys.bert.lr_mul',
            'optim_wrapper.paramwise_cfg.custom_keys.bert.lr_mult',
        ),
    ],
)
def test_a_key_that_nothing_reads_is_named_with_the_nearest(config, option, nearest):
    (message,) = idle_options(config, {option: 1})
    assert message.startswith(f'--cfg-options {option}: ')
    assert 'has no setting' in message
    assert (f'did you mean `{nearest}' in message) == (nearest is not None)


@pytest.mark.parametrize(
    'options',
    [
        {'train_cfg.max_epochs': 1},
        {'train_cfg.val_begin': 3},
        {'load_from': 'a'},
        {'resume': True},
        {'sync_bn': 'torch'},
        {'work_dir': 'a'},
        {'experiment_name': 'a'},
        {'train_dataloader.prefetch_factor': 4},
        {'optim_wrapper.accumulative_counts': 2},
        {'env_cfg.dist_cfg.timeout': 5},
        {'env_cfg.resource_limit': 5},
        {'randomness.deterministic': True},
        {'optim_wrapper.clip_grad.norm_type': 1},
        {'auto_scale_lr.enable': True},
        {'default_hooks.mine.type': 'MyHook', 'default_hooks.mine.interval': 1},
        {'optim_wrapper.paramwise_cfg.custom_keys.neck.lr_mult': 2.0},
        {'model.head.top_n': 3},
        {'param_scheduler.0.gamma': 0.5},
        {'visualizer.vis_backends.0.type': 'TensorboardVisBackend'},
    ],
)
def test_a_setting_that_is_read_is_no_doubt(config, options):
    assert idle_options(config, options) == []


def test_a_variable_that_the_config_has_used_up_is_named_with_what_was_made_of_it():
    config = load_config('mmn_shapes.py')
    (message,) = idle_options(config, {'nms_threshold': 0.3})
    assert '`nms_threshold` is a variable, which the config used when it was read' in message
    assert 'did you mean `model.head.nms_threshold`' in message


def test_every_setting_of_every_config_is_read_or_known_as_a_variable():
    for path in sorted(config_root().glob('*.py')):
        config = load_config(str(path))
        for message in idle_options(config, dict(config)):
            assert 'is a variable' in message, (path.name, message)


def test_tools_print_the_doubt_once_and_a_run_logs_it(tmp_path, capsys, monkeypatch):
    config = write_config(tmp_path / 'tiny.py', write_corpus(tmp_path / 'corpus', 2, 2), epochs=1)
    doubt = '--cfg-options train_cgf.max_epochs: the config has no setting `train_cgf`'
    options = ['--cfg-options', 'train_cgf.max_epochs=7']
    _, output = run_tool('analysis_tools/print_config.py', config, *options)
    assert output.count(f'Warning: {doubt}') == 1
    code, output = run_tool('train.py', config, '--work-dir', tmp_path / 'work', *options)
    assert code == 0
    assert output.count(doubt) == 1
    (log,) = (tmp_path / 'work').glob('*/*.log')
    assert f'WARNING - {doubt}' in log.read_text()
    code, output = run_tool(
        'train.py', config, '--work-dir', tmp_path / 'work', *options, 'model.backbone.foo=1'
    )  # no Runner, and no log
    assert code == 1
    assert output.count(f'Warning: {doubt}') == 1
    for rank, count in (('0', 1), ('1', 0)):
        monkeypatch.setenv('RANK', rank)
        load_config(str(config), {'train_cgf.max_epochs': 7})
        assert capsys.readouterr().err.count(doubt) == count


def test_a_rate_for_no_parameter_is_warned_of(tmp_path):
    config = write_config(tmp_path / 'tiny.py', write_corpus(tmp_path / 'corpus', 2, 2), epochs=1)
    keys = 'optim_wrapper.paramwise_cfg.custom_keys'
    code, output = run_tool(
        'train.py',
        config,
        '--work-dir',
        tmp_path / 'work',
        '--cfg-options',
        f'{keys}.bret.lr_mult=0.5',
        f'{keys}.neck.lr_mult=0.5',
    )
    assert code == 0
    assert f'{keys} sets rates for bret, which no parameter has in its name' in output


def test_without_the_file_of_a_config_doubts_are_the_same():
    assert 'did you mean `model`?' in idle_options(Config(dict(model=dict())), {'modle.a': 1})[0]
