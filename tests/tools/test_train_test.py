"""tools/train.py and tools/test.py on a toy project."""

import pickle
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def assert_one_message(done, *parts):
    """The tool failed with one message that holds all parts, and without a traceback."""
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith('Error: ')]
    assert len(errors) == 1, done.stderr
    for part in parts:
        assert part in errors[0]


def test_training_validates_and_writes_a_checkpoint(toy_run):
    log = next(toy_run.glob('*/*.log')).read_text()
    assert 'toy/items: 8' in log
    assert (toy_run / 'epoch_1.pth').is_file()


def test_resume_continues_after_the_last_epoch(toy_run, run_tool, toy_config, tmp_path):
    done = run_tool(
        'train.py', toy_config, '--work-dir', tmp_path, '--resume', toy_run / 'epoch_1.pth',
        '--cfg-options', 'train_cfg.max_epochs=2',
    )  # fmt: skip
    assert 'resumed epoch: 1' in done.log
    assert not (tmp_path / 'epoch_1.pth').exists()
    torch.load(tmp_path / 'epoch_2.pth', weights_only=True)


def test_options_reach_the_run(run_tool, toy_config, tmp_path):
    run_tool(
        'train.py', toy_config, '--work-dir', tmp_path, '--amp', '--seed', '7', '--no-validate'
    )
    written = (tmp_path / 'toy.py').read_text()
    assert re.search(r'seed=7\b', written)
    wrapper = 'AmpOptimWrapper' if torch.cuda.is_available() else 'CPUAmpOptimWrapper'
    assert f"type='{wrapper}'" in written
    assert 'val_dataloader = None' in written


@pytest.mark.skipif(torch.cuda.is_available(), reason='fp16 works on this machine')
def test_a_precision_that_the_device_lacks_is_named(toy_run, run_tool, toy_config):
    message = 'fp16 needs a GPU; on the CPU mixed precision is bf16'
    assert_one_message(run_tool('train.py', toy_config, '--amp', 'fp16'), message)
    done = run_tool('test.py', toy_config, toy_run / 'epoch_1.pth', '--amp=fp16')
    assert_one_message(done, message)


@pytest.mark.parametrize('amp', [['--amp'], ['--amp', 'bf16']])
def test_a_test_runs_in_mixed_precision(amp, toy_run, run_tool, toy_config, tmp_path):
    done = run_tool('test.py', *amp, toy_config, toy_run / 'epoch_1.pth', '--work-dir', tmp_path)
    assert done.returncode == 0, done.stderr
    precision = 'fp16' if torch.cuda.is_available() and len(amp) == 1 else 'bf16'
    written = (tmp_path / 'toy.py').read_text()
    assert re.search(rf"test_cfg = dict\(amp='{precision}', .*type='AmpTestLoop'", written)
    assert 'toy/items: 8' in done.log


def test_learning_rate_scales_with_the_batch_size(run_tool, toy_config, tmp_path):
    options = ('--cfg-options', 'auto_scale_lr.base_batch_size=8')
    run_tool('train.py', toy_config, '--work-dir', tmp_path, '--auto-scale-lr', *options)
    groups = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['optimizer']['param_groups']
    assert groups[0]['lr'] == pytest.approx(0.01 * 2 / 8)
    done = run_tool('train.py', toy_config, '--auto-scale-lr')
    assert_one_message(done, 'auto_scale_lr.base_batch_size', 'toy.py')


def test_test_evaluates_and_dumps(toy_run, run_tool, toy_config, tmp_path):
    done = run_tool('test.py', toy_config, toy_run / 'epoch_1.pth', '--dump', 'out.pkl')
    assert done.returncode == 0
    assert 'toy/items: 8' in done.log
    assert len(pickle.loads((tmp_path / 'out.pkl').read_bytes())) == 8
    assert (tmp_path / 'work_dirs/toy').is_dir()


def test_missing_config_is_named_with_those_there_are(run_tool):
    assert_one_message(run_tool('train.py', 'no_such.py'), 'no_such.py', 'mmn_tacos.py')
    assert_one_message(run_tool('train.py', 'folder/no_such.py'), 'folder/no_such.py')
    assert_one_message(run_tool('train.py', 'mmn_plugin::no_such.py'), 'mmn_tacos.py')


def test_config_with_a_syntax_error_is_named(run_tool, tmp_path):
    (tmp_path / 'bad.py').write_text('model = dict(type=\n')
    assert_one_message(run_tool('train.py', 'bad.py'), 'bad.py', 'SyntaxError')


def test_missing_checkpoint_is_named_with_those_beside_it(toy_run, run_tool, toy_config):
    path = toy_run / 'epoch_9.pth'
    assert_one_message(run_tool('test.py', toy_config, path), str(path), 'epoch_1.pth')
    assert_one_message(run_tool('train.py', toy_config, '--resume', path), str(path), 'epoch_1.pth')


def test_checkpoint_of_another_architecture_is_refused(toy_run, run_tool, toy_config, tmp_path):
    checkpoint = torch.load(toy_run / 'epoch_1.pth', weights_only=True)
    state = checkpoint['state_dict']
    state['layer.weight'] = torch.zeros(1, 9)
    state['other.bias'] = state.pop('layer.bias')
    torch.save(checkpoint, tmp_path / 'other.pth')
    expected = (
        'other.pth',
        '1 missing: layer.bias',
        '1 unknown: other.bias',
        'layer.weight (1x9, here 1x4)',
    )
    assert_one_message(run_tool('test.py', toy_config, 'other.pth'), *expected)
    assert_one_message(run_tool('train.py', toy_config, '--resume', 'other.pth'), *expected)


def test_training_may_start_from_part_of_the_weights_but_not_from_none(
    run_tool, toy_config, tmp_path
):
    torch.save({'layer.bias': torch.tensor([5.0])}, tmp_path / 'part.pth')
    torch.save({'foreign.bias': torch.tensor([5.0])}, tmp_path / 'none.pth')
    options = ('--work-dir', tmp_path, '--cfg-options', 'optim_wrapper.optimizer.lr=0.0')
    assert run_tool('train.py', toy_config, *options, 'load_from=part.pth').returncode == 0
    state = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['state_dict']
    assert state['layer.bias'] == 5
    done = run_tool('train.py', toy_config, *options, 'load_from=none.pth')
    assert_one_message(done, 'none.pth', 'foreign.bias')


@pytest.mark.parametrize('content', ['foreign', 'damaged', 'text'])
def test_unusable_checkpoint_is_refused(content, toy_run, run_tool, toy_config, tmp_path):
    path = tmp_path / 'bad.pth'
    if content == 'foreign':
        torch.save({'state_dict': {}, 'extra': Path('x')}, path)
    elif content == 'damaged':
        whole = (toy_run / 'epoch_1.pth').read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    else:
        path.write_text('an error page')
    named = 'pathlib' if content == 'foreign' else 'damaged or no PyTorch checkpoint'
    assert_one_message(run_tool('test.py', toy_config, 'bad.pth'), 'bad.pth', named)


def test_unknown_dataset_type_is_named(run_tool, toy_config):
    done = run_tool('train.py', toy_config, '--cfg-options', 'train_dataloader.dataset.type=Tacos')
    assert_one_message(done, 'Tacos is not in the', 'dataset registry')


@pytest.mark.parametrize('workers', [0, 1])
def test_error_of_the_data_is_one_message(workers, run_tool, toy_config):
    # the toy's dataset calls something of this package that raises
    options = (f'train_dataloader.num_workers={workers}', 'train_dataloader.dataset.missing=3')
    done = run_tool('train.py', toy_config, '--cfg-options', *options)
    assert_one_message(done, "mmn_plugin has no config 'video_3'")


def test_bad_dump_suffix_is_named(toy_run, run_tool, toy_config):
    done = run_tool('test.py', toy_config, toy_run / 'epoch_1.pth', '--dump', 'out.csv')
    assert_one_message(done, 'out.csv', '.json')


def test_a_bug_keeps_its_traceback(run_tool, toy_config):
    with pytest.raises(RuntimeError, match='a bug of the toy'):
        run_tool('train.py', toy_config, '--cfg-options', 'train_dataloader.dataset.broken=3')
