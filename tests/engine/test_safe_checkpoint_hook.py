"""When checkpoints are written, and what of a run they bring back."""

import json
import signal
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from helpers.tiny_run import ITERATIONS, Killed, TermHook, tiny_run
from mmengine.hooks import EarlyStoppingHook

from mmn_plugin.engine import PreemptionHook, SafeCheckpointHook, checkpoint_files
from mmn_plugin.engine import preemption as preemption_hook


def safe(**options):
    return dict(type='SafeCheckpointHook', **(dict(save_best='score', rule='greater') | options))


def load(path):
    return torch.load(path, map_location='cpu', weights_only=True)


def names(folder, pattern='*.pth'):
    return sorted(path.name for path in folder.glob(pattern))


def weights(run):
    return torch.cat([value.detach().flatten() for value in run.runner.model.parameters()])


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    """A run of four epochs that nothing happens to."""
    return tiny_run(tmp_path_factory.mktemp('unbroken'), safe())


def test_every_epochs_checkpoint_is_written_once(tmp_path):
    written, write = [], checkpoint_files.write_atomically

    def record(content, path):
        written.append(path.rpartition('/')[2])
        write(content, path)

    with mock.patch.object(checkpoint_files, 'write_atomically', record):
        tiny_run(tmp_path, safe(interval=1))
    epochs = [name for name in written if name.startswith('epoch_')]
    assert epochs == [f'epoch_{epoch}.pth' for epoch in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ('minutes', 'options', 'saved'),
    [
        (25.0, {}, [1, 2, 3, 4, 5, 6]),  # an epoch lasts longer: each has its own
        (6.0, {}, [1, 2, 3, 4, 5, 6]),  # two would last longer
        (4.0, {}, [2, 4, 6]),
        (2.0, {}, [5, 6]),
        (0.1, {}, [6]),  # the last always
        (0.1, dict(minutes=0), [1, 2, 3, 4, 5, 6]),
        (4.0, dict(minutes=15), [3, 6]),
        (25.0, dict(save_begin=3), [3, 4, 5, 6]),
        (25.0, dict(interval=4), [4, 6]),
        (0.1, dict(interval=1), [1, 2, 3, 4, 5, 6]),
        (25.0, dict(interval=-1, save_last=False), []),
    ],
)
def test_checkpoints_are_written_by_time_or_by_interval(tmp_path, minutes, options, saved):
    tiny_run(tmp_path, safe(**options), epochs=6, scores=[0.0] * 6, minutes=minutes)
    assert names(tmp_path, 'epoch_*') == [f'epoch_{epoch}.pth' for epoch in saved]


def test_an_epoch_that_ends_with_the_iterations_interval_has_its_own_checkpoint(tmp_path):
    tiny_run(tmp_path, safe(iter_interval=2 * ITERATIONS), kill=f'iteration {3 * ITERATIONS + 1}')
    assert names(tmp_path, '[ei]*.pth') == ['epoch_2.pth']


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match='minutes=-1'):
        SafeCheckpointHook(minutes=-1)
    with pytest.raises(ValueError, match='iter_interval'):
        SafeCheckpointHook(by_epoch=False)


@pytest.mark.parametrize('epoch', [1, 2, 3, 4])
def test_a_validation_that_a_kill_prevented_is_made_up_for(tmp_path, unbroken, epoch):
    killed = tiny_run(tmp_path, safe(interval=1), kill=f'validation {epoch}')
    assert killed.killed
    resumed = tiny_run(tmp_path, safe(interval=1), resume=True)
    assert resumed.events[0] == f'validation {epoch}'
    assert names(tmp_path, 'best_*') == ['best_score_epoch_4.pth']
    assert torch.equal(weights(resumed), weights(unbroken))


def test_a_validation_that_was_done_is_not_done_again(tmp_path, unbroken):
    tiny_run(tmp_path, safe(interval=2), kill=f'iteration {2 * ITERATIONS + 1}')
    resumed = tiny_run(tmp_path, safe(interval=2), resume=True)
    assert resumed.events[0] == 'epoch 3'
    assert torch.equal(weights(resumed), weights(unbroken))
    assert tiny_run(tmp_path, safe(), resume=True).events == []  # a run that is complete


def test_also_where_a_later_one_was_done_and_lost(tmp_path):
    tiny_run(tmp_path, safe(interval=2), kill=f'iteration {3 * ITERATIONS + 1}')
    resumed = tiny_run(tmp_path, safe(interval=2), resume=True)
    assert resumed.events[:2] == ['epoch 3', 'validation 3']


def test_one_that_lowered_the_learning_rate_is_done_again(tmp_path):
    plateau = dict(
        type='ReduceOnPlateauLR', monitor='score', rule='greater', patience=0, factor=0.1
    )
    options = dict(scores=[1.0] * 4, schedule=[plateau])
    expected = tiny_run(tmp_path / 'unbroken', safe(interval=1), **options).rates
    assert len(set(expected)) == 3
    kill = f'iteration {2 * ITERATIONS + 1}'
    tiny_run(tmp_path / 'tried', safe(interval=1), kill=kill, **options)
    resumed = tiny_run(tmp_path / 'tried', safe(interval=1), resume=True, **options)
    assert resumed.events[0] == 'validation 2'
    assert resumed.rates == expected[2:]


def test_the_best_checkpoint_survives_a_resumed_run_with_other_scores(tmp_path):
    """Its epoch comes after the last checkpoint, and another machine rounds otherwise."""
    tiny_run(
        tmp_path,
        safe(interval=2),
        scores=[1.0, 2.0, 9.0, 0.0],
        kill=f'iteration {3 * ITERATIONS + 1}',
    )
    assert names(tmp_path) == ['best_score_epoch_3.pth', 'epoch_2.pth']
    best = load(tmp_path / 'best_score_epoch_3.pth')['state_dict']['line.weight']
    tiny_run(tmp_path, safe(interval=2), scores=[1.0, 2.0, 1.5, 8.0], resume=True)
    assert names(tmp_path, 'best_*') == ['best_score_epoch_3.pth']
    assert torch.equal(load(tmp_path / 'best_score_epoch_3.pth')['state_dict']['line.weight'], best)
    hub = load(tmp_path / 'epoch_4.pth')['message_hub']['runtime_info']
    assert hub['best_score'] == 9.0
    assert hub['best_ckpt'].endswith('best_score_epoch_3.pth')


def test_a_better_one_then_replaces_it(tmp_path):
    tiny_run(
        tmp_path,
        safe(interval=2),
        scores=[1.0, 2.0, 3.0, 0.0],
        kill=f'iteration {3 * ITERATIONS + 1}',
    )
    tiny_run(tmp_path, safe(interval=2), scores=[1.0, 2.0, 1.5, 8.0], resume=True)
    assert names(tmp_path, 'best_*') == ['best_score_epoch_4.pth']


@pytest.mark.parametrize('at', ['best_score_epoch_3.pth', 'last_validation.json', None])
def test_there_is_a_best_checkpoint_wherever_a_kill_comes(tmp_path, at):
    """Before the new one is written, before it is noted, before the one before is deleted."""
    from mmn_plugin.engine import checkpointing as module

    write, remove = checkpoint_files.write_atomically, SafeCheckpointHook._remove

    def die(content, path):
        if str(path).endswith(at or 'never') and b'epoch_3' in content:
            raise Killed
        write(content, path)

    def die_removing(hook, name):
        if at is None and name == 'best_score_epoch_2.pth':
            raise Killed
        remove(hook, name)

    with (
        mock.patch.object(checkpoint_files, 'write_atomically', die),
        mock.patch.object(module, 'write_atomically', die),
        mock.patch.object(SafeCheckpointHook, '_remove', die_removing),
    ):
        assert tiny_run(tmp_path, safe(interval=2), scores=[1.0, 2.0, 9.0, 0.0]).killed
    run = tiny_run(tmp_path, safe(interval=2), scores=[1.0, 2.0, 1.5, 0.0], resume=True)
    named = run.runner.message_hub.get_info('best_ckpt').rpartition('/')[2]
    assert named in names(tmp_path, 'best_*')
    assert named == ('best_score_epoch_3.pth' if at is None else 'best_score_epoch_2.pth')


def test_an_older_checkpoint_that_is_asked_for_comes_without_later_validations(tmp_path):
    tiny_run(tmp_path, safe(interval=1), scores=[1.0, 2.0, 9.0, 0.0])
    run = tiny_run(
        tmp_path, safe(interval=1), scores=[1.0, 2.0, 3.0, 0.0], resume=tmp_path / 'epoch_2.pth'
    )
    assert run.events[0] == 'validation 2'
    assert run.runner.message_hub.get_info('best_score') == 3.0


def test_a_run_without_checkpoint_leaves_no_best_one_beside_that_of_the_next(tmp_path):
    assert tiny_run(tmp_path, safe(), kill=f'iteration {3 * ITERATIONS}').killed
    assert names(tmp_path) == ['best_score_epoch_2.pth']
    tiny_run(tmp_path, safe(), scores=[1.0, 0.0, 0.0, 0.0], resume=True)
    assert names(tmp_path) == ['best_score_epoch_1.pth', 'epoch_4.pth']


def test_several_best_scores_survive_too(tmp_path):
    options = safe(interval=2, save_best=['score', 'loss_score'], rule=['greater', 'less'])
    with mock.patch(
        'helpers.tiny_run.Score.compute_metrics',
        lambda self, _: dict(score=self.score, loss_score=self.score),
    ):
        tiny_run(
            tmp_path, options, scores=[2.0, 3.0, 9.0, 0.0], kill=f'iteration {3 * ITERATIONS + 1}'
        )
        run = tiny_run(tmp_path, options, scores=[2.0, 3.0, 4.0, 0.0], resume=True)
    assert names(tmp_path, 'best_*') == ['best_loss_score_epoch_4.pth', 'best_score_epoch_3.pth']
    assert run.runner.message_hub.get_info('best_score_score') == 9.0


def test_a_run_that_stops_early_has_a_checkpoint_of_its_last_epoch(tmp_path):
    stop = EarlyStoppingHook('score', rule='greater', patience=1)
    run = tiny_run(tmp_path, safe(), scores=[3.0, 2.0, 1.0, 1.0], hooks=[stop])
    assert run.runner.epoch < 4
    assert names(tmp_path, 'epoch_*') == [f'epoch_{run.runner.epoch}.pth']
    assert tiny_run(tmp_path, safe(), epochs=run.runner.epoch, resume=True).events == []


def test_a_damaged_note_of_validations_is_no_hindrance(tmp_path):
    tiny_run(tmp_path, safe(interval=1), kill=f'iteration {2 * ITERATIONS + 1}')
    (tmp_path / SafeCheckpointHook.ADDED).write_text('{"check')
    assert tiny_run(tmp_path, safe(interval=1), resume=True).events[0] == 'validation 2'


def test_a_note_names_the_checkpoint_it_belongs_to(tmp_path):
    tiny_run(tmp_path, safe())
    added = json.loads((tmp_path / SafeCheckpointHook.ADDED).read_text())
    assert added['checkpoint'] == load(tmp_path / 'epoch_4.pth')['meta']['checkpoint_id']
    assert added['best']['best_score'] == 4.0


@pytest.mark.parametrize('iteration', [ITERATIONS + 1, 2 * ITERATIONS])
def test_mmengines_checkpoint_hook_loses_nothing_at_sigterm_either(tmp_path, unbroken, iteration):
    stock = dict(type='CheckpointHook', interval=4)
    stopped = tiny_run(tmp_path, stock, hooks=[TermHook(iteration), PreemptionHook()])
    assert stopped.code == 143
    saved = tmp_path / f'iter_{iteration}.pth'
    assert (tmp_path / 'last_checkpoint').read_text() == str(saved)
    assert load(saved)['meta']['iter'] == iteration
    resumed = tiny_run(tmp_path, stock, resume=True, hooks=[PreemptionHook()])
    assert resumed.runner.iter == 4 * ITERATIONS
    assert torch.equal(weights(resumed), weights(unbroken))
    assert (tmp_path / 'epoch_4.pth').is_file()


@pytest.fixture
def foreground():
    """A process that Ctrl-C reaches, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(folder, *signals):
    return tiny_run(
        folder, safe(), hooks=[TermHook(5, *signals)], preemption=dict(type='PreemptionHook')
    )


@pytest.mark.parametrize('times', [1, 2])
def test_ctrl_c_saves_and_ends_as_a_shell_reports_it(tmp_path, foreground, unbroken, times):
    stopped = interrupted(tmp_path, *[signal.SIGINT] * times)  # twice at once is one of a terminal
    assert stopped.code == 130
    assert 'iter_5.pth' in names(tmp_path)
    assert torch.equal(weights(tiny_run(tmp_path, safe(), resume=True)), weights(unbroken))


def test_after_sigterm_an_interrupt_changes_nothing(tmp_path, foreground):
    assert interrupted(tmp_path, signal.SIGTERM, signal.SIGINT).code == 143


def test_a_second_ctrl_c_ends_at_once(tmp_path, foreground, monkeypatch):
    monkeypatch.setattr(preemption_hook, '_ONE_PRESS', -1.0)
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path, signal.SIGINT, signal.SIGINT)
    assert 'iter_5.pth' not in names(tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_that_ignores_interrupts_goes_on_ignoring_them(tmp_path, foreground):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts what is in the background
    assert interrupted(tmp_path, signal.SIGINT).code == 0
    assert 'epoch_4.pth' in names(tmp_path)


def test_a_checkpoint_of_an_earlier_training_is_not_taken_for_that_of_a_new_one(tmp_path, capsys):
    tiny_run(tmp_path, safe())
    assert tiny_run(tmp_path, safe(), lr=0.2, kill='iteration 2').killed
    assert 'epoch_4.pth' in names(tmp_path)  # of the first
    capsys.readouterr()
    run = tiny_run(tmp_path, safe(), lr=0.2, resume=True)
    assert [event for event in run.events if event.startswith('epoch')] == [
        'epoch 1',
        'epoch 2',
        'epoch 3',
        'epoch 4',
    ]
    assert run.rates[0] == 0.2
    assert 'epoch_4.pth is passed over: it is of another training' in capsys.readouterr().out


def test_a_training_goes_on_with_its_own_checkpoint_through_any_number_of_kills(tmp_path):
    tiny_run(tmp_path, safe())
    assert tiny_run(tmp_path, safe(interval=1), kill='iteration 5', lr=0.2).killed
    for iteration in (6, 9, 12):  # the first two before another checkpoint
        assert tiny_run(
            tmp_path, safe(interval=3), kill=f'iteration {iteration}', lr=0.2, resume=True
        ).killed
    run = tiny_run(tmp_path, safe(), resume=True, lr=0.2)
    assert run.events == ['epoch 4', 'validation 4']
    assert run.rates == [0.2]


@pytest.mark.parametrize('elsewhere', [False, True])
def test_a_training_that_went_back_to_a_checkpoint_goes_on_from_there(tmp_path, elsewhere):
    first = tiny_run(tmp_path / 'first', safe(interval=1))
    source, folder = tmp_path / 'first/epoch_2.pth', tmp_path / ('new' if elsewhere else 'first')
    for how in (source, True):  # killed before it has a checkpoint of its own
        assert tiny_run(folder, safe(interval=-1), kill='iteration 9', resume=how).killed
    assert tiny_run(folder, safe(interval=1), kill='iteration 11', resume=True).killed
    run = tiny_run(folder, safe(), resume=True)
    assert run.events == ['epoch 4', 'validation 4']
    assert torch.equal(weights(run), weights(first))


def test_checkpoints_from_before_there_was_a_record_are_taken(tmp_path):
    assert tiny_run(tmp_path, safe(interval=1), kill='iteration 8').killed
    (tmp_path / 'training.json').unlink()
    assert tiny_run(tmp_path, safe(interval=-1), kill='iteration 8', resume=True).killed
    assert tiny_run(tmp_path, safe(), resume=True).events[0] == 'epoch 3'


def test_a_new_training_over_an_earlier_one_is_said(tmp_path, capsys):
    tiny_run(tmp_path, safe(), epochs=1)
    assert 'earlier training' not in capsys.readouterr().out
    tiny_run(tmp_path, safe(), epochs=1)
    assert 'of an earlier training (best_score_epoch_1.pth, epoch_1.pth)' in capsys.readouterr().out


def test_a_complete_training_says_that_nothing_is_left(tmp_path, capsys):
    tiny_run(tmp_path, safe())
    assert 'complete' not in capsys.readouterr().out
    run = tiny_run(tmp_path, safe(), resume=True)
    assert run.events == []
    assert 'the training is complete: epoch 4 of 4 is done, and nothing is left to train' in (
        capsys.readouterr().out
    )


def test_resuming_names_each_setting_that_differs_and_the_one_that_counts(tmp_path, capsys):
    tiny_run(tmp_path, safe(), epochs=2)
    run = tiny_run(tmp_path, safe(), resume=True, epochs=3, lr=0.2)
    assert run.rates == [0.1]
    said = capsys.readouterr().out
    assert (
        'optim_wrapper.optimizer.lr: 0.1 in the checkpoint, 0.2 in this config; the checkpoint '
        'counts'
    ) in said
    assert (
        'train_cfg.max_epochs: 2 in the checkpoint, 3 in this config; this config counts'
    ) in said
    tiny_run(tmp_path, safe(), resume=True, epochs=3, lr=0.1)  # it kept the config it was given
    said = capsys.readouterr().out
    assert 'optim_wrapper.optimizer.lr: 0.2 in the checkpoint, 0.1 in this config' in said
    assert 'max_epochs:' not in said


PLAIN = """
import sys
import torch
for path in sys.argv[1:]:
    content = torch.load(path, weights_only=True)
    assert 'line.weight' in content['state_dict'], content.keys()
    print(content['message_hub']['log_scalars']['train/loss']['log_history'].tolist())
assert not {'mmengine', 'mmn_plugin'} & {*sys.modules}
"""


def test_torch_alone_reads_every_checkpoint(tmp_path):
    run = tiny_run(tmp_path, safe(), scores=[np.float64(i) for i in (1, 2, 3, 4)])
    paths = [tmp_path / name for name in names(tmp_path)]
    assert [path.name for path in paths] == ['best_score_epoch_4.pth', 'epoch_4.pth']
    done = subprocess.run(
        [sys.executable, '-c', PLAIN, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    history = run.runner.message_hub.log_scalars['train/loss'].data[0].tolist()
    assert done.stdout.splitlines() == [str(history)] * 2
    assert len(history) == 4 * ITERATIONS


def test_log_histories_go_on_after_resuming(tmp_path):
    unbroken = tiny_run(tmp_path / 'unbroken', safe()).runner.message_hub
    assert tiny_run(tmp_path / 'killed', safe(interval=1), kill='iteration 8').killed
    resumed = tiny_run(tmp_path / 'killed', safe(), resume=True).runner.message_hub
    for key in ('train/loss', 'train/lr'):
        for mine, other in zip(
            resumed.log_scalars[key].data, unbroken.log_scalars[key].data, strict=True
        ):
            assert mine.tolist() == other.tolist()
