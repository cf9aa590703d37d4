"""tools/train.py and tools/test.py on a toy project."""

import pickle
from pathlib import Path

import pytest
import torch
from helpers.run_tool import output_of, run_tool
from mmengine.config import Config

TOY = Path(__file__).parent / 'toy'


@pytest.fixture(scope='module')
def toy_run(tmp_path_factory):
    """Folder of one training of the toy with tools/train.py, holding epoch_1.pth."""
    folder = tmp_path_factory.mktemp('toy_run')
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOY)
        output = output_of('train.py', TOY / 'toy.py', '--work-dir', folder)
    assert 'toy/items: 8' in output  # it validates
    return folder


@pytest.fixture(autouse=True)
def _with_the_toy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(TOY)


def train(*arguments):
    return run_tool('train.py', TOY / 'toy.py', *arguments)


def test(*arguments):
    return run_tool('test.py', TOY / 'toy.py', *arguments)


test.__test__ = False


def assert_one_message(done, *parts):
    """The tool failed with one message that holds all parts, and without a traceback."""
    code, output = done
    assert code == 1
    assert 'Traceback' not in output
    errors = [line for line in output.splitlines() if line.startswith('Error: ')]
    assert len(errors) == 1, output
    for part in parts:
        assert part in errors[0]


def test_resume_continues_after_the_last_epoch(toy_run, tmp_path):
    epochs = ('--cfg-options', 'train_cfg.max_epochs=2')
    _, output = train('--work-dir', '.', '--resume', toy_run / 'epoch_1.pth', *epochs)
    assert 'resumed epoch: 1' in output
    assert not (tmp_path / 'epoch_1.pth').exists()
    torch.load(tmp_path / 'epoch_2.pth', weights_only=True)


def test_options_reach_the_run(tmp_path):
    train('--work-dir', '.', '--amp', '--seed', '7', '--no-validate')
    written = Config.fromfile(tmp_path / 'toy.py')
    assert written.randomness.seed == 7
    wrapper = 'AmpOptimWrapper' if torch.cuda.is_available() else 'CPUAmpOptimWrapper'
    assert written.optim_wrapper.type == wrapper
    assert written.val_dataloader is None


@pytest.mark.skipif(torch.cuda.is_available(), reason='fp16 works on this machine')
def test_a_precision_that_the_device_lacks_is_named(toy_run):
    message = 'fp16 needs a GPU; on the CPU mixed precision is bf16'
    assert_one_message(train('--amp', 'fp16'), message)
    assert_one_message(test(toy_run / 'epoch_1.pth', '--amp=fp16'), message)


@pytest.mark.parametrize('amp', [['--amp'], ['--amp', 'bf16']])
def test_a_test_runs_in_mixed_precision(amp, toy_run, tmp_path):
    arguments = (*amp, TOY / 'toy.py', toy_run / 'epoch_1.pth', '--work-dir', '.')
    output = output_of('test.py', *arguments)
    precision = 'fp16' if torch.cuda.is_available() and len(amp) == 1 else 'bf16'
    written = Config.fromfile(tmp_path / 'toy.py').test_cfg
    assert (written.amp, written.type) == (precision, 'AmpTestLoop')
    assert 'toy/items: 8' in output


def test_learning_rate_scales_with_the_batch_size(tmp_path):
    options = ('--cfg-options', 'auto_scale_lr.base_batch_size=8')
    train('--work-dir', '.', '--auto-scale-lr', *options)
    groups = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['optimizer']['param_groups']
    assert groups[0]['lr'] == pytest.approx(0.01 * 2 / 8)
    assert_one_message(train('--auto-scale-lr'), 'auto_scale_lr.base_batch_size', 'toy.py')


def test_test_evaluates_and_dumps(toy_run, tmp_path):
    code, output = test(toy_run / 'epoch_1.pth', '--dump', 'out.pkl')
    assert code == 0
    assert 'toy/items: 8' in output
    assert len(pickle.loads((tmp_path / 'out.pkl').read_bytes())) == 8
    assert (tmp_path / 'work_dirs/toy').is_dir()


def test_missing_files_are_named_with_those_there_are(toy_run, tmp_path):
    assert_one_message(run_tool('train.py no_such.py'), 'no_such.py', 'mmn_tacos.py')
    assert_one_message(run_tool('train.py folder/no_such.py'), 'folder/no_such.py')
    assert_one_message(run_tool('train.py mmn_plugin::no_such.py'), 'mmn_tacos.py')
    (tmp_path / 'bad.py').write_text('model = dict(type=\n')
    assert_one_message(run_tool('train.py bad.py'), 'bad.py', 'SyntaxError')
    path = toy_run / 'epoch_9.pth'
    assert_one_message(test(path), str(path), 'epoch_1.pth')
    assert_one_message(train('--resume', path), str(path), 'epoch_1.pth')


def test_checkpoint_of_another_architecture_is_refused(toy_run, tmp_path):
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
    assert_one_message(test('other.pth'), *expected)
    assert_one_message(train('--resume', 'other.pth'), *expected)


def test_training_may_start_from_part_of_the_weights_but_not_from_none(tmp_path):
    torch.save({'layer.bias': torch.tensor([5.0])}, tmp_path / 'part.pth')
    torch.save({'foreign.bias': torch.tensor([5.0])}, tmp_path / 'none.pth')
    options = ('--work-dir', '.', '--cfg-options', 'optim_wrapper.optimizer.lr=0.0')
    assert train(*options, 'load_from=part.pth')[0] == 0
    state = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['state_dict']
    assert state['layer.bias'] == 5
    assert_one_message(train(*options, 'load_from=none.pth'), 'none.pth', 'foreign.bias')


@pytest.mark.parametrize('content', ['foreign', 'damaged', 'text'])
def test_unusable_checkpoint_is_refused(content, toy_run, tmp_path):
    path = tmp_path / 'bad.pth'
    if content == 'foreign':
        torch.save({'state_dict': {}, 'extra': Path('x')}, path)
    else:
        whole = (toy_run / 'epoch_1.pth').read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content == 'damaged' else b'an error page')
    named = 'pathlib' if content == 'foreign' else 'damaged or no PyTorch checkpoint'
    assert_one_message(test('bad.pth'), 'bad.pth', named)


def test_mistakes_of_the_data_are_one_message_and_bugs_keep_their_traceback(toy_run):
    dataset = 'train_dataloader.dataset'
    done = train('--cfg-options', f'{dataset}.type=Tacos')
    assert_one_message(done, 'Tacos is not in the', 'dataset registry')
    for workers in (0, 1):  # the toy's dataset calls something of this package that raises
        options = (f'train_dataloader.num_workers={workers}', f'{dataset}.missing=3')
        done = train('--cfg-options', *options)
        assert_one_message(done, "mmn_plugin has no config 'video_3'")
    assert_one_message(test(toy_run / 'epoch_1.pth', '--dump', 'out.csv'), 'out.csv', '.json')
    with pytest.raises(RuntimeError, match='a bug of the toy'):
        train('--cfg-options', f'{dataset}.broken=3')
