"""What every process writes beside a checkpoint, and takes back with that one alone."""

import re
from pathlib import Path

import pytest
import torch
from helpers.on_device import checkpoints_on_device
from helpers.tiny_run import ITERATIONS, tiny_run
from mmengine.hooks import Hook

SAFE = dict(
    type='SafeCheckpointHook', interval=1, save_best='score', rule='greater', iter_interval=2
)


class MemoryHook(Hook):
    """Remembers a random number of every iteration, and how many there were."""

    def __init__(self):
        self.numbers, self.count = [], 0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.numbers.append(torch.rand(()).item())
        self.count += 1

    def rank_state(self):
        return dict(numbers=torch.tensor(self.numbers, dtype=torch.float64))

    def load_rank_state(self, state):
        assert type(state['numbers']) is torch.Tensor
        self.numbers = state['numbers'].tolist()

    def common_state(self):
        return dict(count=self.count)

    def load_common_state(self, state):
        self.count = state['count']


def load(path):
    return torch.load(path, map_location='cpu', weights_only=True)


def run(folder, hook=None, checkpoint=None, **options):
    """Train with a hook that remembers; returns the run and the hook."""
    hook = hook or MemoryHook()
    return tiny_run(folder, SAFE | (checkpoint or {}), hooks=[hook], **options), hook


def states(folder):
    """Folders of what processes wrote, by their checkpoint."""
    return {path.name.rpartition('-')[0]: path for path in folder.glob('run_state/*')}


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    """Folder and memory of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp('unbroken')
    _, hook = run(folder)
    assert hook.count == 4 * ITERATIONS
    return folder, hook


def test_every_checkpoint_names_files_of_its_own(unbroken):
    folder, hook = unbroken
    assert sorted(states(folder)) == [f'epoch_{epoch}.pth' for epoch in (1, 2, 3, 4)]
    for name, files in states(folder).items():
        assert load(folder / name)['run_state']['folder'] == files.name
        assert sorted(path.name for path in files.iterdir()) == ['common.pth', 'rank_0.pth']
    mine = load(states(folder)['epoch_4.pth'] / 'rank_0.pth')
    assert mine['parts']['hook.MemoryHook']['numbers'].tolist() == hook.numbers
    assert load(states(folder)['epoch_4.pth'] / 'common.pth') == {
        'hook.MemoryHook': dict(count=4 * ITERATIONS)
    }


def test_nothing_of_it_is_in_a_checkpoint_or_in_the_best_one(unbroken):
    folder, _ = unbroken
    assert set(load(folder / 'epoch_4.pth')['run_state']) == {
        'version',
        'world_size',
        'folder',
        'common',
        'loop',
    }
    (best,) = folder.glob('best_*.pth')
    assert set(load(best)) == {'meta', 'state_dict', 'message_hub'}


@pytest.mark.parametrize('kill', [f'iteration {2 * ITERATIONS + 3}', f'validation {2}'])
def test_a_resumed_run_remembers_the_same(tmp_path, unbroken, kill):
    run(tmp_path, kill=kill)
    resumed, hook = run(tmp_path, resume=True)
    assert resumed.events
    assert (hook.numbers, hook.count) == (unbroken[1].numbers, unbroken[1].count)


def test_files_are_deleted_with_their_checkpoint(tmp_path):
    run(tmp_path, checkpoint=dict(max_keep_ckpts=2))
    assert sorted(states(tmp_path)) == ['epoch_3.pth', 'epoch_4.pth']


def test_a_checkpoint_that_is_written_again_leaves_one_set_of_files(tmp_path):
    run(tmp_path)
    before = states(tmp_path)
    run(tmp_path, resume=tmp_path / 'epoch_3.pth')
    assert len(list(tmp_path.glob('run_state/*'))) == 4
    assert states(tmp_path)['epoch_4.pth'] != before['epoch_4.pth']
    assert states(tmp_path)['epoch_3.pth'] == before['epoch_3.pth']


def test_a_kill_before_a_checkpoint_is_replaced_leaves_it_with_its_own_files(tmp_path):
    options = dict(scores=[0.0] * 4)
    _, first = run(tmp_path, epochs=3, **options)
    other = MemoryHook()
    other.after_train_iter = lambda *args, **kwargs: other.numbers.append(0.0)
    killed, _ = run(
        tmp_path,
        other,
        dict(iter_interval=0),
        kill='save',
        epochs=3,
        resume=tmp_path / 'epoch_2.pth',
        **options,
    )
    assert killed.killed
    assert killed.runner.iter == 3 * ITERATIONS
    assert len(list(tmp_path.glob('run_state/epoch_3.pth-*'))) == 2
    _, hook = run(tmp_path, resume=tmp_path / 'epoch_3.pth', **options)
    assert hook.numbers[: 3 * ITERATIONS] == first.numbers
    run(tmp_path, resume=tmp_path / 'epoch_2.pth', **options)  # written again, and whole
    assert len(list(tmp_path.glob('run_state/epoch_3.pth-*'))) == 1


def test_files_of_a_checkpoint_that_never_came_are_removed(tmp_path):
    killed, _ = run(tmp_path, kill='save')
    assert killed.killed
    assert len(states(tmp_path)) == 1
    assert not list(tmp_path.glob('*.pth'))
    run(tmp_path, epochs=1)
    assert list(states(tmp_path)) == ['epoch_1.pth']


def spoil(path, how):
    if how == 'missing':
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize('name', ['rank_0.pth', 'common.pth'])
@pytest.mark.parametrize('how', ['missing', 'damaged'])
def test_a_whole_epochs_checkpoint_goes_on_without_and_says_what_is_lost(
    tmp_path, capsys, name, how
):
    run(tmp_path, kill=f'iteration {2 * ITERATIONS + 1}')
    spoil(states(tmp_path)['epoch_2.pth'] / name, how)
    resumed, hook = run(tmp_path, resume=True)
    assert len(hook.numbers) == hook.count == 2 * ITERATIONS
    assert resumed.events[0] == 'epoch 3'
    said = capsys.readouterr().out
    reason = 'is missing' if how == 'missing' else r'cannot be read \(.+\)'
    assert re.search(
        rf'run_state/epoch_2.pth-\w+/{name}, a part of the checkpoint, {reason}: the '
        'order of the videos goes on, but .*begin anew',
        said,
    )


def test_inside_an_epoch_it_does_not(tmp_path):
    run(tmp_path, kill=f'iteration {ITERATIONS + 2}', checkpoint=dict(iter_interval=4))
    spoil(states(tmp_path)['iter_4.pth'] / 'rank_0.pth', 'missing')
    with pytest.raises(
        ValueError,
        match=r'inside an epoch .* as many processes and all '
        r'their files.*whole epoch',
    ):
        run(tmp_path, resume=True)


def test_a_moved_checkpoint_finds_the_files_that_were_moved_with_it(tmp_path, unbroken):
    run(tmp_path / 'work', kill=f'iteration {2 * ITERATIONS + 1}')
    (tmp_path / 'work').rename(tmp_path / 'moved')
    _, hook = run(tmp_path / 'new', resume=tmp_path / 'moved/epoch_2.pth')
    assert hook.numbers == unbroken[1].numbers


def test_a_part_that_comes_or_goes_is_said(tmp_path, capsys):
    run(tmp_path, epochs=1)
    tiny_run(tmp_path, SAFE, epochs=1, resume=True)
    assert 'has a state of hook.MemoryHook, which this run lacks' in capsys.readouterr().out
    tiny_run(tmp_path, SAFE, epochs=2, resume=True)
    run(tmp_path, epochs=2, resume=True)
    assert 'has no state of hook.MemoryHook, which begins anew' in capsys.readouterr().out


def test_a_checkpoint_of_another_version_is_refused(tmp_path):
    run(tmp_path, epochs=1)
    content = load(tmp_path / 'epoch_1.pth')
    content['run_state'] = dict(version=1, world_size=1, ranks=[])
    torch.save(content, tmp_path / 'epoch_1.pth')
    with pytest.raises(ValueError, match='run state of the checkpoint is of version 1'):
        run(tmp_path, epochs=2, resume=True)


def test_what_a_checkpoint_cannot_hold_is_refused_with_its_owner(tmp_path):
    hook = MemoryHook()
    hook.rank_state = lambda: dict(path=Path())
    with pytest.raises(ValueError, match=r'hook\.MemoryHook holds a .*Path'):
        run(tmp_path, hook)


def test_a_checkpoint_on_a_device_is_resumed_with_what_belongs_on_the_cpu_there(tmp_path, unbroken):
    run(tmp_path, kill=f'iteration {2 * ITERATIONS + 1}')
    seen = []

    class StepHook(Hook):
        def before_train(self, runner):
            seen.extend(
                type(state['step']) for state in runner.optim_wrapper.state_dict()['state'].values()
            )

    hook = MemoryHook()
    with checkpoints_on_device():
        tiny_run(tmp_path, SAFE, hooks=[hook, StepHook()], resume=True)
    assert hook.numbers == unbroken[1].numbers
    assert seen == [torch.Tensor] * 2  # else each step of the optimizer would wait for them
