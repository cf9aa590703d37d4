"""What every process writes beside a checkpoint, and takes back with that one alone."""

import contextlib
import random
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.on_device import checkpoints_on_device
from helpers.tiny_run import ITERATIONS, load, tiny_run
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset

from mmn_plugin.engine import dist, resume
from mmn_plugin.engine.resume import ResumableBatchSampler, SeededDataset, share_out_step
from mmn_plugin.errors import InputError
from mmn_plugin.models import NegativeSource

SAFE = dict(
    type='SafeCheckpointHook', interval=1, save_best='score', rule='greater', iter_interval=2
)
AFTER_2 = f'iteration {2 * ITERATIONS + 1}'


class MemoryHook(Hook):
    """Remembers random numbers of every iteration, from all generators, and how many there were."""

    def __init__(self):
        self.numbers, self.count = [], 0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        drawn = torch.randn(()).item() + np.random.randn() + random.gauss(0, 1)
        self.numbers.append(drawn)
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


def test_every_checkpoint_names_files_of_its_own_and_the_best_one_has_none(unbroken):
    folder, hook = unbroken
    assert sorted(states(folder)) == [f'epoch_{epoch}.pth' for epoch in (1, 2, 3, 4)]
    for name, files in states(folder).items():
        content = load(folder / name)['run_state']
        assert set(content) == {'world_size', 'folder', 'common', 'loop'}
        assert content['folder'] == files.name
        assert sorted(path.name for path in files.iterdir()) == ['common.pth', 'rank_0.pth']
    last = states(folder)['epoch_4.pth']
    mine = load(last / 'rank_0.pth')['parts']['hook.MemoryHook']
    assert mine['numbers'].tolist() == hook.numbers
    assert load(last / 'common.pth') == {'hook.MemoryHook': dict(count=4 * ITERATIONS)}
    (best,) = folder.glob('best_*.pth')
    assert set(load(best)) == {'meta', 'state_dict', 'message_hub'}


@pytest.mark.parametrize('device', [False, True])
@pytest.mark.parametrize('kill', [f'iteration {2 * ITERATIONS + 3}', 'validation 2'])
def test_a_resumed_run_remembers_the_same(tmp_path, unbroken, kill, device):
    """Also moved to another folder, and where the checkpoint is loaded to a device."""
    run(tmp_path / 'work', kill=kill)
    shutil.copytree(tmp_path / 'work', tmp_path / 'moved')
    shutil.rmtree(tmp_path / 'work')
    seen, watch = [], Hook()
    watch.before_train = lambda runner: seen.extend(
        type(state['step']) for state in runner.optim_wrapper.state_dict()['state'].values()
    )
    hook = MemoryHook()
    with checkpoints_on_device() if device else contextlib.nullcontext():
        assert tiny_run(tmp_path / 'moved', SAFE, hooks=[hook, watch], resume=True).events
    assert (hook.numbers, hook.count) == (unbroken[1].numbers, unbroken[1].count)
    assert seen == [torch.Tensor] * 2  # else each step of the optimizer would wait for them


def test_files_are_deleted_with_their_checkpoint(tmp_path):
    run(tmp_path, checkpoint=dict(max_keep_ckpts=2))
    before = states(tmp_path)
    assert sorted(before) == ['epoch_3.pth', 'epoch_4.pth']
    run(tmp_path, resume=tmp_path / 'epoch_3.pth')  # one is written again
    assert len(list(tmp_path.glob('run_state/*'))) == 2
    assert states(tmp_path)['epoch_4.pth'] != before['epoch_4.pth']
    assert states(tmp_path)['epoch_3.pth'] == before['epoch_3.pth']


def test_a_kill_before_a_checkpoint_is_replaced_leaves_it_with_its_own_files(tmp_path):
    options = dict(scores=[0.0] * 4)
    _, first = run(tmp_path, epochs=3, **options)
    other, second = MemoryHook(), tmp_path / 'epoch_2.pth'
    other.after_train_iter = lambda *args, **kwargs: other.numbers.append(0.0)
    killed, _ = run(
        tmp_path, other, dict(iter_interval=0), kill='save', epochs=3, resume=second, **options
    )
    assert killed.killed
    assert killed.runner.iter == 3 * ITERATIONS
    assert len(list(tmp_path.glob('run_state/epoch_3.pth-*'))) == 2
    _, hook = run(tmp_path, resume=tmp_path / 'epoch_3.pth', **options)
    assert hook.numbers[: 3 * ITERATIONS] == first.numbers
    run(tmp_path, resume=second, **options)  # written again, and whole
    assert len(list(tmp_path.glob('run_state/epoch_3.pth-*'))) == 1


def test_files_of_a_checkpoint_that_never_came_are_removed(tmp_path):
    assert run(tmp_path, kill='save')[0].killed
    assert list(states(tmp_path)) == ['iter_2.pth']
    assert not list(tmp_path.glob('*.pth'))
    run(tmp_path, checkpoint=dict(iter_interval=0), epochs=1)
    assert list(states(tmp_path)) == ['epoch_1.pth']


@pytest.mark.parametrize(('name', 'how'), [('rank_0.pth', 'missing'), ('common.pth', 'damaged')])
def test_a_whole_epochs_checkpoint_goes_on_without_and_says_what_is_lost(
    tmp_path, capsys, name, how
):
    run(tmp_path, kill=AFTER_2)
    path = states(tmp_path)['epoch_2.pth'] / name
    if how == 'missing':
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:200])
    resumed, hook = run(tmp_path, resume=True)
    assert len(hook.numbers) == hook.count == 2 * ITERATIONS
    assert resumed.events[:2] == ['validation 2', 'epoch 3']
    reason = 'is missing' if how == 'missing' else r'cannot be read \(.+\)'
    assert re.search(
        rf'run_state/epoch_2.pth-\w+/{name}, a part of the checkpoint, {reason}: the '
        'order of the videos goes on, but .*begin anew',
        capsys.readouterr().out,
    )


def test_inside_an_epoch_it_does_not(tmp_path):
    run(tmp_path, kill=f'iteration {ITERATIONS + 2}', checkpoint=dict(iter_interval=4))
    (states(tmp_path)['iter_4.pth'] / 'rank_0.pth').unlink()
    text = r'inside an epoch .* as many processes and all their files.*whole epoch'
    with pytest.raises(ValueError, match=text):
        run(tmp_path, resume=True)


def test_a_part_that_comes_or_goes_is_said(tmp_path, capsys):
    run(tmp_path, epochs=1)
    tiny_run(tmp_path, SAFE, epochs=2, resume=True)
    assert 'has a state of hook.MemoryHook, which this run lacks' in capsys.readouterr().out
    run(tmp_path, epochs=2, resume=True)
    assert 'has no state of hook.MemoryHook, which begins anew' in capsys.readouterr().out


def test_what_a_checkpoint_cannot_hold_is_refused_with_its_owner(tmp_path):
    hook = MemoryHook()
    hook.rank_state = lambda: dict(path=Path())
    with pytest.raises(ValueError, match=r'hook\.MemoryHook holds a .*Path'):
        run(tmp_path, hook)


class Noise(Dataset):
    def __len__(self):
        return 11

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), torch.rand(1).item()


def batches_of(first=0, epoch=0, workers=0, seed=5):
    """Batches of an epoch from one on."""
    sampler = DefaultSampler(Noise(), seed=seed)
    batches = ResumableBatchSampler(BatchSampler(sampler, 2, False), rank=0)
    batches.first, batches.epoch, batches.seed = first, epoch, seed
    sampler.set_epoch(epoch)
    loader = DataLoader(
        SeededDataset(Noise()), batch_sampler=batches, num_workers=workers, collate_fn=list
    )
    return list(loader)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_resumed_epoch_yields_what_was_left_of_it(workers):
    state = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    whole = batches_of()
    assert random.getstate() == state[0]  # loading draws nothing from the generators of training
    assert (np.random.get_state()[1] == state[1]).all()
    assert sorted(sample[0] for batch in whole for sample in batch) == list(range(11))
    for first in (0, 5, 6):
        assert batches_of(first, workers=workers) == whole[first:]
    others = [whole, batches_of(epoch=1), batches_of(seed=6)]
    drawn = {
        value for batches in others for batch in batches for sample in batch for value in sample[1:]
    }
    assert len(drawn) == 3 * 33  # no number comes twice


def test_only_batchnorms_statistics_are_broadcast_and_others_are_not(monkeypatch):
    sent = []
    monkeypatch.setattr(dist, 'get_world_size', lambda: 2)
    monkeypatch.setattr(dist, 'broadcast', lambda buffer, src: sent.append((id(buffer), src)))
    model = nn.Sequential(nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2))
    model.register_buffer('passing', torch.zeros(3), persistent=False)
    model.register_buffer('absent', None)
    dist.broadcast_statistics(model)
    names = [*dist.persistent_buffers(model)]
    assert names == ['1.running_mean', '1.running_var', '1.num_batches_tracked']
    assert sent == [(id(model.get_buffer(name)), 0) for name in names]
    for given in (model, nn.DataParallel(model)):
        assert dist.bare_model(SimpleNamespace(model=given)) is model


@pytest.mark.parametrize(
    ('source', 'ranks', 'loader', 'message'),
    [
        (dict(videos_per_step=9), 2, dict(batch_size=1), '=9 is no multiple of 2 processes'),
        (
            dict(videos_per_step=6),
            2,
            DataLoader([1], 2),
            'needs batches of 3 videos.* with 2: give',
        ),
        (dict(videos_per_step=8, piece=5), 2, dict(batch_size=9), 'piece=5 is more than the 4 v'),
        (dict(piece=3), 1, DataLoader([1], 2), 'piece=3 is more than the 2 videos'),
    ],
)
def test_a_step_that_processes_or_pieces_cannot_share_is_refused(
    source, ranks, loader, message, monkeypatch
):
    monkeypatch.setattr(resume, 'get_world_size', lambda: ranks)
    with pytest.raises(InputError, match=message):
        share_out_step(NegativeSource(**source), loader)


def test_a_step_is_shared_out_to_processes(monkeypatch):
    monkeypatch.setattr(resume, 'get_world_size', lambda: 2)
    loader = dict(batch_size=32)
    share_out_step(NegativeSource(piece=4), loader)
    assert loader == dict(batch_size=32)
    share_out_step(NegativeSource(videos_per_step=8, piece=4), loader)
    share_out_step(NegativeSource(videos_per_step=4), DataLoader([1], 2))
    assert loader == dict(batch_size=4)
