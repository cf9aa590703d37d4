"""What a mistake in a config, a checkpoint or an option looks like on the command line."""

import argparse
import socket

import pytest
import torch
from helpers.run_tool import output_of, run_tool
from helpers.tiny_corpus import write_config, write_corpus
from mmaction.registry import MODELS
from mmengine.config import Config

from mmn_plugin.cli.main import whole_number
from mmn_plugin.config import config_errors, load_config, require_checkpoint_content, require_device
from mmn_plugin.datasets.feature_store import FeatureError
from mmn_plugin.engine import build_runner, dist
from mmn_plugin.errors import plain_errors


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('command_line')
    return write_config(folder / 'tiny.py', write_corpus(folder / 'corpus', 2, 2))


def build_model(config):
    with config_errors(config):
        MODELS.build(config.model)


def printed(capsys, action) -> str:
    """The one line that `action` ends in."""
    with pytest.raises(SystemExit) as stop, plain_errors():
        action()
    assert stop.value.code == 1
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 1
    return text


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ("_base_ = ['absent.py']\n", 'absent.py, which does not exist'),
        ("_base_ = 'mmn_plugin::absent.py'\n", "no config 'absent.py'"),
        ('a = absent\n', "my_config.py cannot be run: NameError: name 'absent' is not defined"),
        ("custom_imports = dict(imports=['absent_module'])\n", "['absent_module']}; the folder of"),
        ('a = = 1\n', 'cannot be run: SyntaxError: '),
        ('work_dir = "x"\n', 'my_config.py lacks the setting `model`'),
    ],
)
def test_a_config_that_cannot_be_used_is_one_line(tmp_path, capsys, text, message):
    path = tmp_path / 'my_config.py'
    path.write_text(text)
    assert message in printed(capsys, lambda: build_runner(load_config(str(path)), []))


def test_a_config_that_is_not_there_names_both_places_looked_at(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = printed(capsys, lambda: load_config('absent.py'))
    assert 'mmn_charades.py' in output
    assert f'there is no config absent.py (current folder: {tmp_path}), and mmn_' in output


def test_an_absent_setting_of_a_part_is_named_with_its_path(tmp_path, capsys):
    path = tmp_path / 'my_config.py'
    path.write_text('loaders = [dict(dataset=dict(a=1))]\n')

    def run():
        with config_errors(cfg := load_config(str(path))):
            return cfg.loaders[0].dataset.pipeline

    assert f'{path} lacks the setting `loaders.0.dataset.pipeline`' in printed(capsys, run)
    config = Config(dict(model=dict(type='ClipEncoder')))
    output = printed(capsys, lambda: build_model(config))
    assert 'the config: ClipEncoder.__init__() missing 4 required' in output
    assert 'in_channels' in output


UNKNOWN = 'got an unexpected keyword argument'


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('model.foo=1', f"tiny.py: MMN.__init__() {UNKNOWN} 'foo'"),
        ('model.backbone.foo=1', f"ClipEncoder.__init__() {UNKNOWN} 'foo'"),
        ('train_dataloader.batchsize=3', f"tiny.py: DataLoader.__init__() {UNKNOWN} 'batchsize'"),
        ('randomness.sed=3', f"Runner.set_randomness() {UNKNOWN} 'sed'"),
        ('env_cfg.mp_cfg.foo=3', f"set_multi_processing() {UNKNOWN} 'foo'"),
        ('default_hooks.checkpoint.intervall=3', f'SafeCheckpointHook.__init__() {UNKNOWN}'),
        ('default_hooks.checkpiont.interval=3', 'must contain the key "type", but got {'),
        ('default_hooks.sampler_seed.foo=3', 'DistSamplerSeedHook() takes no arguments'),
        ('optim_wrapper.optimizer.type=Absent', "optimizer.type is 'Absent', and there is no"),
        ('optim_wrapper.optimizer.foo=1', f'AdamW.__init__() {UNKNOWN}'),
        ('optim_wrapper.optimizer.lr=-1', 'Invalid learning rate: -1'),
        ('param_scheduler.0.foo=1', f"() {UNKNOWN} 'foo'"),
        ('train_dataloader.collate_fn.type=absent', "collate_fn.type is 'absent', and there is"),
        ('train_dataloader.prefetch_factor=0', 'prefetch_factor'),
        ('train_dataloader.dataset.type=Absent', 'Absent is not in the'),
    ],
)
def test_a_mistake_in_what_the_runner_builds_is_one_line(config, tmp_path, option, message):
    output = output_of('train.py {} --work-dir {} --cfg-options', config, tmp_path, option, code=1)
    assert 'Epoch(train)' not in output
    assert message in output.splitlines()[-1]


@pytest.mark.parametrize('option', ['word', '=1', 'a=[(1]'])
def test_an_option_that_is_no_setting_is_an_error_of_the_argument(option):
    output = output_of('train.py absent.py --cfg-options', option, code=2)
    assert 'error: argument --cfg-options: ' in output.splitlines()[-1]
    assert option in output.splitlines()[-1]


def test_an_error_of_another_kind_is_not_hidden(monkeypatch):
    class Broken(torch.nn.Module):
        def __init__(self, mapping=None):
            super().__init__()
            len(3) if mapping is None else mapping['absent']

    monkeypatch.setitem(MODELS.module_dict, 'BrokenForTest', Broken)
    with pytest.raises(TypeError, match='has no len'), plain_errors():
        build_model(Config(dict(model=dict(type='BrokenForTest'))))
    with pytest.raises(KeyError, match='absent'), plain_errors():
        build_model(Config(dict(model=dict(type='BrokenForTest', mapping={}))))
    with pytest.raises(TypeError, match='unexpected keyword'), plain_errors():
        Broken(foo=1)  # not from a config
    with pytest.raises(AttributeError, match='absent'), plain_errors(), config_errors(Config()):
        _ = Broken.absent


class Unreadable(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise FeatureError('video v1: no features:\nmake them first')


def test_an_error_in_a_worker_of_a_data_loader_is_its_message(capsys):
    loader = torch.utils.data.DataLoader(Unreadable(), num_workers=1)
    with pytest.raises(SystemExit), plain_errors():
        next(iter(loader))
    assert capsys.readouterr().err == 'Error: video v1: no features:\nmake them first\n'


def test_what_is_no_checkpoint_is_refused_by_name():
    for content, message in (
        ([1, 2], 'bad.pth holds a list and is no checkpoint'),
        (dict(state_dict=[1]), 'bad.pth is no checkpoint'),
        ({3: 1}, 'bad.pth is no checkpoint'),
        (dict(state_dict={}, meta=None), "bad.pth is a damaged checkpoint: its 'meta' is None"),
    ):
        with pytest.raises(ValueError, match=message):
            require_checkpoint_content(content, 'bad.pth')
    for content in (dict(state_dict={}, meta={}), dict(state_dict={}), dict(weight=1)):
        require_checkpoint_content(content, 'good.pth')


def test_a_device_or_a_number_that_is_none_is_named():
    for name in ('cuda:99', 'nonsense'):
        with pytest.raises(ValueError, match=f"the device '{name}' cannot be used here: ."):
            require_device(name)
    assert require_device('cpu') == 'cpu'
    assert [whole_number('0'), whole_number('3')] == [0, 3]
    for text in ('-1', '1.5', 'two'):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not a whole number"):
            whole_number(text)


@pytest.mark.parametrize(
    ('option', 'value', 'least'),
    [
        ('train_dataloader.batch_size', 0, 1),
        ('val_dataloader.batch_size', -1, 1),
        ('test_dataloader.batch_size', 2.5, 1),
        ('train_dataloader.batch_size', True, 1),
        ('train_dataloader.num_workers', -1, 0),
        ('train_cfg.max_epochs', 0, 1),
        ('train_cfg.val_interval', 0, 1),
        ('optim_wrapper.accumulative_counts', 0, 1),
    ],
)
def test_a_size_that_leaves_nothing_to_do_is_one_line(config, capsys, option, value, least):
    output = printed(capsys, lambda: load_config(str(config), {option: value}))
    assert f'{option}={value} of the config: give a whole number of {least} or more' in output


@pytest.mark.parametrize(
    ('launcher', 'variables', 'parts'),
    [
        (
            'pytorch',
            {},
            ('torchrun', 'dist_train.sh', 'RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT'),
        ),
        ('pytorch', dict(RANK='0', WORLD_SIZE='1', MASTER_ADDR='a'), ('sets MASTER_PORT;',)),
        (
            'pytorch',
            dict(RANK='0', WORLD_SIZE='1', MASTER_ADDR='a', MASTER_PORT='x'),
            ('MASTER_PORT=x is no number',),
        ),
        ('slurm', {}, ('srun', 'slurm_train.sh', 'SLURM_PROCID, SLURM_NTASKS, SLURM_NODELIST')),
        ('mpi', {}, ('mpirun', 'OMPI_COMM_WORLD_RANK', 'MASTER_ADDR')),
    ],
)
@pytest.mark.parametrize('tool', ['train.py {}', 'test.py {} absent.pth'])
def test_a_launcher_that_did_not_start_the_process_is_one_line(
    config, tmp_path, monkeypatch, tool, launcher, variables, parts
):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    line = f'{tool} --launcher {launcher} --work-dir {{}}'
    output = output_of(line, config, tmp_path / 'work', code=1)
    (line,) = output.splitlines()
    for part in parts:
        assert part in line
    assert not (tmp_path / 'work').exists()


def test_slurm_without_gpus_is_one_line(capsys, monkeypatch):
    for name in ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'):
        monkeypatch.setenv(name, '1')
    monkeypatch.setattr(dist, 'get_device', lambda: 'cpu')
    assert 'needs GPUs' in printed(capsys, lambda: dist.require_launcher('slurm'))
    monkeypatch.setattr(dist, 'get_device', lambda: 'cuda')
    dist.require_launcher('slurm')


def test_a_port_in_use_is_one_line(config, tmp_path, monkeypatch):
    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        other.listen()
        port = str(other.getsockname()[1])
        variables = dict(RANK='0', WORLD_SIZE='2', LOCAL_RANK='0', MASTER_ADDR='127.0.0.1')
        for name, value in (variables | dict(MASTER_PORT=port)).items():
            monkeypatch.setenv(name, value)
        line = 'train.py {} --launcher pytorch --work-dir {}'
        code, output = run_tool(line, config, tmp_path / 'work')
    assert code == 1
    assert 'Traceback' not in output
    assert f'port {port} of this machine is in use' in output.splitlines()[-1]


def test_ctrl_c_is_one_line_and_the_exit_code_of_a_shell(capsys):
    with pytest.raises(SystemExit) as stop, plain_errors():
        raise KeyboardInterrupt
    assert stop.value.code == 130
    assert capsys.readouterr().err == 'Interrupted\n'
