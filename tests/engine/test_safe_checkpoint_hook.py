"""When checkpoints are written, and what of a run they bring back."""

import pickletools
import signal
import zipfile
from unittest import mock

import numpy as np
import pytest
import torch
from helpers.tiny_run import ITERATIONS, Killed, TermHook, load, tiny_run
from mmengine.hooks import EarlyStoppingHook

from mmn_plugin.engine import PreemptionHook, SafeCheckpointHook, checkpoint_files, preemption


def safe(**options):
    return dict(type='SafeCheckpointHook', **(dict(save_best='score', rule='greater') | options))


EVERY = safe(interval=1)


def names(folder, pattern='*.pth'):
    return sorted(path.name for path in folder.glob(pattern))


def weights(run):
    return torch.cat([value.detach().flatten() for value in run.runner.model.parameters()])


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
    """A run of four epochs that nothing happens to; its folder, and what it wrote."""
    folder, written, write = tmp_path_factory.mktemp('unbroken'), [], checkpoint_files.write_durably

    def record(content, path):
        written.append(path.rpartition('/')[2])
        write(content, path)

    with mock.patch.object(checkpoint_files, 'write_durably', record):
        run = tiny_run(folder, EVERY, scores=[np.float64(i) for i in (1, 2, 3, 4)])
    run.folder, run.written = folder, written
    return run


def test_every_epochs_checkpoint_is_written_once(unbroken):
    epochs = [name for name in unbroken.written if name.startswith('epoch_')]
    assert epochs == [f'epoch_{epoch}.pth' for epoch in (1, 2, 3, 4)]
    assert names(unbroken.folder) == ['best_score_epoch_4.pth', *epochs]


def test_torch_alone_reads_every_checkpoint(unbroken):
    history = unbroken.runner.message_hub.log_scalars['train/loss'].data[0].tolist()
    assert len(history) == 4 * ITERATIONS
    for name in ('best_score_epoch_4.pth', 'epoch_4.pth'):
        path = unbroken.folder / name
        stored = load(path)['message_hub']['log_scalars']['train/loss']['log_history']
        assert stored.tolist() == history
        with zipfile.ZipFile(path) as archive:
            (pickled,) = (part for part in archive.namelist() if part.endswith('data.pkl'))
            operations = [*pickletools.genops(archive.read(pickled))]
        called = {
            argument.split('.')[0].split()[0]
            for op, argument, _ in operations
            if op.name == 'GLOBAL'
        }
        assert called == {'torch', 'collections'}


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
    for options, error, message in (
        (dict(minutes=-1), ValueError, 'minutes=-1'),
        (dict(by_epoch=False), ValueError, 'iter_interval'),
        (dict(intervall=1), TypeError, "unexpected keyword argument 'intervall'"),
    ):
        with pytest.raises(error, match=message):
            SafeCheckpointHook(**options)


@pytest.mark.parametrize(
    'kill', ['validation 2', f'iteration {2 * ITERATIONS + 1}', 'validation 4']
)
def test_a_killed_run_goes_on_with_the_validation_of_its_checkpoint(tmp_path, unbroken, kill):
    assert tiny_run(tmp_path, EVERY, kill=kill).killed
    resumed = tiny_run(tmp_path, EVERY, resume=True)
    assert resumed.events[0] == ('validation 4' if kill == 'validation 4' else 'validation 2')
    assert names(tmp_path, 'best_*') == ['best_score_epoch_4.pth']
    assert torch.equal(weights(resumed), weights(unbroken))
    first, second = (run.runner.message_hub for run in (resumed, unbroken))
    assert first.get_info('best_score') == second.get_info('best_score') == 4.0
    for key in ('train/loss', 'train/lr'):  # the log goes on
        for mine, other in zip(
            first.log_scalars[key].data, second.log_scalars[key].data, strict=True
        ):
            assert mine.tolist() == other.tolist()


def test_a_validation_that_lowered_the_learning_rate_does_so_again(tmp_path):
    plateau = dict(
        type='ReduceOnPlateauLR', monitor='score', rule='greater', patience=0, factor=0.1
    )
    options = dict(scores=[1.0] * 4, schedule=[plateau])
    expected = tiny_run(tmp_path / 'unbroken', EVERY, **options).rates
    assert len(set(expected)) == 3
    tiny_run(tmp_path / 'tried', EVERY, kill=f'iteration {2 * ITERATIONS + 1}', **options)
    assert tiny_run(tmp_path / 'tried', EVERY, resume=True, **options).rates == expected[2:]


@pytest.mark.parametrize('at', ['write', 'delete'])
def test_there_is_a_best_checkpoint_wherever_a_kill_comes(tmp_path, at):
    write = checkpoint_files.write_durably

    def die_writing(content, path):
        if at == 'write' and path.endswith('best_score_epoch_3.pth'):
            raise Killed
        write(content, path)

    def die_deleting(path, missing_ok):
        if at == 'delete' and path.name == 'best_score_epoch_2.pth':
            raise Killed
        path_unlink(path, missing_ok)

    path_unlink = type(tmp_path).unlink
    with (
        mock.patch.object(checkpoint_files, 'write_durably', die_writing),
        mock.patch.object(type(tmp_path), 'unlink', die_deleting),
    ):
        assert tiny_run(tmp_path, safe(interval=2), scores=[1.0, 2.0, 9.0, 0.0]).killed
    assert 'best_score_epoch_2.pth' in names(tmp_path)
    run = tiny_run(tmp_path, safe(interval=2), scores=[1.0, 2.0, 9.0, 0.0], resume=True)
    assert names(tmp_path, 'best_*') == ['best_score_epoch_3.pth']
    assert run.runner.message_hub.get_info('best_ckpt').endswith('best_score_epoch_3.pth')


def test_a_run_without_checkpoint_leaves_no_best_one_beside_that_of_the_next(tmp_path):
    assert tiny_run(tmp_path, safe(), kill=f'iteration {3 * ITERATIONS}').killed
    assert names(tmp_path) == ['best_score_epoch_2.pth']
    tiny_run(tmp_path, safe(), scores=[1.0, 0.0, 0.0, 0.0], resume=True)
    assert names(tmp_path) == ['best_score_epoch_1.pth', 'epoch_4.pth']


def test_several_best_scores_have_checkpoints_of_their_own(tmp_path):
    options = safe(interval=2, save_best=['score', 'loss_score'], rule=['greater', 'less'])
    with mock.patch(
        'helpers.tiny_run.Score.compute_metrics',
        lambda self, _: dict(score=self.score, loss_score=self.score),
    ):
        run = tiny_run(tmp_path, options, scores=[2.0, 3.0, 9.0, 0.0])
    assert names(tmp_path, 'best_*') == ['best_loss_score_epoch_4.pth', 'best_score_epoch_3.pth']
    assert run.runner.message_hub.get_info('best_score_score') == 9.0


def test_a_run_that_stops_early_has_a_checkpoint_of_its_last_epoch(tmp_path):
    stop = EarlyStoppingHook('score', rule='greater', patience=1)
    run = tiny_run(tmp_path, safe(), scores=[3.0, 2.0, 1.0, 1.0], hooks=[stop])
    assert run.runner.epoch < 4
    assert names(tmp_path, 'epoch_*') == [f'epoch_{run.runner.epoch}.pth']


@pytest.mark.parametrize('iteration', [ITERATIONS + 1, 2 * ITERATIONS])
def test_mmengines_checkpoint_hook_loses_nothing_at_sigterm_either(tmp_path, unbroken, iteration):
    stock = dict(type='CheckpointHook', interval=4)
    stopped = tiny_run(tmp_path, stock, hooks=[TermHook(iteration), PreemptionHook()])
    assert stopped.code == 143
    saved = tmp_path / f'iter_{iteration}.pth'
    assert (tmp_path / 'last_checkpoint').read_text() == str(saved)
    assert load(saved)['meta']['iter'] == iteration
    resumed = tiny_run(tmp_path, stock, resume=True, hooks=[PreemptionHook()])
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


def test_ctrl_c_saves_and_ends_as_a_shell_reports_it(tmp_path, foreground, unbroken):
    stopped = interrupted(tmp_path, *[signal.SIGINT] * 2)  # twice at once is one of a terminal
    assert stopped.code == 130
    assert 'iter_5.pth' in names(tmp_path)
    assert torch.equal(weights(tiny_run(tmp_path, safe(), resume=True)), weights(unbroken))
    assert interrupted(tmp_path / 'term', signal.SIGTERM, signal.SIGINT).code == 143


def test_a_second_ctrl_c_ends_at_once(tmp_path, foreground, monkeypatch):
    monkeypatch.setattr(preemption, '_ONE_PRESS', -1.0)
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path, signal.SIGINT, signal.SIGINT)
    assert 'iter_5.pth' not in names(tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_that_ignores_interrupts_goes_on_ignoring_them(tmp_path, foreground):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts what is in the background
    assert interrupted(tmp_path, signal.SIGINT).code == 0
    assert 'epoch_4.pth' in names(tmp_path)


def test_a_training_goes_on_with_its_own_checkpoints_through_any_number_of_kills(tmp_path, capsys):
    tiny_run(tmp_path, safe())
    assert 'earlier training' not in capsys.readouterr().out
    assert tiny_run(tmp_path, safe(interval=3), kill='iteration 5', lr=0.2).killed
    text = 'of an earlier training (best_score_epoch_4.pth, epoch_4.pth), which this one will'
    assert text in capsys.readouterr().out
    for iteration in (6, 9, 12):  # the first two before another checkpoint
        kill = f'iteration {iteration}'
        run = tiny_run(tmp_path, safe(interval=3), kill=kill, lr=0.2, resume=True)
        assert run.killed
        assert run.events[0] == 'epoch 1'
    assert 'epoch_4.pth is passed over: it is of another training' in capsys.readouterr().out
    run = tiny_run(tmp_path, safe(), resume=True, lr=0.2)
    assert run.events == ['validation 3', 'epoch 4', 'validation 4']
    assert run.rates == [0.2]


@pytest.mark.parametrize('elsewhere', [False, True])
def test_a_training_that_went_back_to_a_checkpoint_goes_on_from_there(tmp_path, elsewhere):
    first = tiny_run(tmp_path / 'first', EVERY)
    source, folder = tmp_path / 'first/epoch_2.pth', tmp_path / ('new' if elsewhere else 'first')
    for how in (source, True):  # killed before it has a checkpoint of its own
        assert tiny_run(folder, safe(interval=-1), kill='iteration 9', resume=how).killed
    assert tiny_run(folder, EVERY, kill='iteration 11', resume=True).killed
    run = tiny_run(folder, safe(), resume=True)
    assert run.events == ['validation 3', 'epoch 4', 'validation 4']
    assert torch.equal(weights(run), weights(first))


def test_a_program_in_a_checkpoint_is_not_run_when_it_is_resumed(tmp_path):
    tiny_run(tmp_path, safe(), epochs=1)
    content = load(tmp_path / 'epoch_1.pth')
    content['meta']['config'] = f"open({str(tmp_path / 'ran')!r}, 'w')"  # MMEngine's name for it
    torch.save(content, tmp_path / 'epoch_1.pth')
    assert tiny_run(tmp_path, safe(), epochs=2, resume=True).runner.epoch == 2
    assert not (tmp_path / 'ran').exists()


def test_resuming_names_each_setting_that_differs_and_the_one_that_counts(tmp_path, capsys):
    tiny_run(tmp_path, safe(), epochs=2)
    assert tiny_run(tmp_path, safe(), resume=True, epochs=3, lr=0.2).rates == [0.1]
    said = capsys.readouterr().out
    rate = 'optim_wrapper.optimizer.lr: {} in the checkpoint, {} in this config; the checkpoint '
    assert rate.format(0.1, 0.2) + 'counts' in said
    epochs = 'train_cfg.max_epochs: 2 in the checkpoint, 3 in this config; this config counts'
    assert epochs in said
    run = tiny_run(tmp_path, safe(), resume=True, epochs=3, lr=0.1)
    said = capsys.readouterr().out
    assert rate.format(0.2, 0.1) in said  # it kept the config it was given
    assert 'max_epochs:' not in said
    assert run.events == ['validation 3']
    assert 'the training is complete: epoch 3 of 3 is done, and nothing is left to train' in said
