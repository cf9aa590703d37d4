"""Runs that are killed, stopped and fed bad losses, in two real processes over gloo.

A run of four epochs that nothing happens to is the measure. Another one goes through everything
that a long run meets, and has to end with the same weights, bit for bit.
"""

import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from helpers.processes import in_another_process, train_in
from helpers.tiny_corpus import FEATURE_SIZE, NUM_SEGMENTS, write_config, write_corpus

# Ten videos, two ranks of two: three iterations an epoch, the last one short. Dropout is on, the
# pipeline draws random numbers in two persistent workers, validation draws some every epoch, and
# no seed is configured. Negatives come from a memory bank too: of each rank, or common to both
# where gradients are accumulated.
SURVIVAL = f"""
custom_imports = dict(imports=['mmn_plugin', 'helpers.faults'])
custom_hooks = [dict(type='FaultHook')]
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [dict(type='MultiStepLR', milestones=[2], gamma=0.5),
                   dict(type='LinearLR', start_factor=0.1, end=8, by_epoch=False)]
default_hooks = dict(
    freeze_language_model=dict(through_epoch=1), negatives=dict(full_through_epoch=2),
    checkpoint=dict(interval=1, max_keep_ckpts=-1))
model = dict(head=dict(negatives=dict(queue_size=5)))
randomness = dict(_delete_=True, seed=None)
workers = dict(num_workers=2, persistent_workers=True)
train_dataloader = dict(**workers, dataset=dict(pipeline=[
    dict(type='LoadClipFeatures'), dict(type='NoiseTransform'),
    dict(type='PoolClipFeatures', num_segments={NUM_SEGMENTS}), dict(type='PackGroundingInputs')]))
val_dataloader = dict(**workers)
"""
EPOCHS = 4
KILLED_AT = (3, 4, 5)  # every iteration of epoch 2, which the run has to begin anew each time
pytestmark = pytest.mark.skipif(not hasattr(__import__('os'), 'fork'), reason='needs fork')


@pytest.fixture(scope='module')
def lab(tmp_path_factory, zygote):
    """A folder with corpus and config, and what starts runs in it."""
    folder = tmp_path_factory.mktemp('survival')
    corpus = write_corpus(folder / 'corpus', train=10)
    base = write_config(folder / 'tiny.py', corpus, epochs=EPOCHS)
    config = folder / 'survival.py'
    config.write_text(f"_base_ = '{base.name}'\n{SURVIVAL}")
    assert FEATURE_SIZE > 1  # else normalizing the rows would undo the noise
    return SimpleNamespace(folder=folder, config=config, run=run_in(zygote, folder, config))


def run_in(zygote, folder, config):
    count = iter(range(1000))

    def run(name, *arguments, entropy=1, fault=None, options=(), **more):
        output = folder / f'{name}_{next(count)}.txt'
        if options:
            arguments = (*arguments, '--cfg-options', *options)
        return zygote.run(
            config,
            '--work-dir',
            folder / name,
            *arguments,
            output=output,
            MMN_ENTROPY=str(entropy),
            MMN_FAULT=repr(fault or {}),
            **more,
        )

    return run


@pytest.fixture(scope='module')
def unbroken(lab):
    """Work folder of the run that nothing happens to."""
    codes, output = lab.run('unbroken')
    assert codes == [0, 0], output
    return lab.folder / 'unbroken'


@pytest.fixture(scope='module')
def tried(lab, unbroken):
    """Work folder of the run that everything happens to, and every leg's codes and output."""
    faults = dict(
        **{f'kill_{i}': dict(kill=(i, 1)) for i in KILLED_AT},  # SIGKILL of one rank
        kill_val=dict(kill_val=(6,)),  # of both, between a checkpoint and its validation
        write=dict(write='epoch_3.pth.part'),  # while a checkpoint is written
        term=dict(group=(7, 1)),  # SIGTERM to one rank and its workers, inside an epoch
        term_val=dict(term_val=(9, 0)),  # SIGTERM inside a validation
        end={},
    )
    legs = {}
    for entropy, (name, fault) in enumerate(faults.items(), start=1):
        codes, output = lab.run(
            'tried', *(['--resume'] if legs else []), entropy=entropy, fault=fault
        )
        files = sorted(path.name for path in (lab.folder / 'tried').glob('*.pth*'))
        legs[name] = SimpleNamespace(codes=codes, output=output, files=files)
    return SimpleNamespace(folder=lab.folder / 'tried', legs=legs)


def load(path):
    return torch.load(path, map_location='cpu', weights_only=True)


def load_states(folder, checkpoint):
    """What each of two ranks wrote for a checkpoint."""
    states = folder / 'run_state' / load(folder / checkpoint)['run_state']['folder']
    return [load(states / f'rank_{rank}.pth') for rank in (0, 1)]


def assert_same(first, second):
    """Bit for bit, in every tensor and number."""
    if torch.is_tensor(first):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            assert_same(first[name], second[name])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


def videos(folder, rank):
    """Line of every iteration that counts, the last of those that were done twice."""
    lines = (folder / f'videos_{rank}.txt').read_text().splitlines()
    return dict(line.split(': ', 1) for line in lines)


def test_a_run_that_was_killed_and_stopped_ends_with_the_same_weights(unbroken, tried):
    assert tried.legs['end'].codes == [0, 0], tried.legs['end'].output
    first, second = (load(folder / 'epoch_4.pth') for folder in (unbroken, tried.folder))
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(first[part], second[part])
    assert first['meta']['seed'] == second['meta']['seed']
    first, second = (load_states(folder, 'epoch_4.pth') for folder in (unbroken, tried.folder))
    bank = 'model.head.negatives'
    assert len(second[1]['parts'][bank]['video_ids']) == 5
    assert_same(first[0]['parts'][bank], second[0]['parts'][bank])
    assert_same(first[0]['random'], second[0]['random'])
    assert_same(first[1], second[1])


@pytest.mark.parametrize('rank', [0, 1])
def test_no_sample_is_repeated_or_left_out_and_each_gets_the_same_noise(unbroken, tried, rank):
    assert videos(tried.folder, rank) == videos(unbroken, rank)
    assert len(videos(unbroken, rank)) == 3 * EPOCHS


def test_ranks_share_batchnorms_statistics_and_no_memory_bank(unbroken):
    weights = load(unbroken / 'epoch_4.pth')['state_dict']
    first, second = load_states(unbroken, 'epoch_4.pth')
    statistics = [name for name in weights if name.endswith(('running_mean', 'running_var'))]
    assert statistics
    assert all(torch.equal(second['buffers'][name], weights[name]) for name in statistics)
    banks = [rank['parts']['model.head.negatives']['video_ids'] for rank in (first, second)]
    assert [len(bank) for bank in banks] == [5, 5]
    assert banks[0] != banks[1]


def test_the_measure_itself_depends_on_dropout_and_noise(unbroken):
    sums = [line.split()[-1] for line in videos(unbroken, 0).values()]
    assert len(set(sums)) == len(sums)
    states = [load_states(unbroken, f'epoch_{epoch}.pth')[0]['random'] for epoch in (3, 4)]
    assert not torch.equal(states[0]['torch'], states[1]['torch'])


def test_a_killed_rank_ends_the_others(tried):
    for iteration in KILLED_AT:
        leg = tried.legs[f'kill_{iteration}']
        assert leg.codes[1] == -9
        assert leg.codes[0] in (1, -15)
        assert 'epoch_1.pth' in leg.files
        assert 'epoch_2.pth' not in leg.files


def test_a_validation_that_a_kill_prevented_is_made_up_for_and_counts(unbroken, tried):
    killed, resumed = tried.legs['kill_val'], tried.legs['write']
    assert -9 in killed.codes
    assert 'epoch_2.pth' in killed.files
    assert 'Epoch(val) [2]' not in killed.output
    assert resumed.output.index('Epoch(val) [2]') < resumed.output.index('Epoch(train) [3]')
    best = [
        sorted(path.name for path in folder.glob('best_*')) for folder in (unbroken, tried.folder)
    ]
    assert best[0] == best[1]
    hubs = [
        load(folder / 'epoch_4.pth')['message_hub']['runtime_info']
        for folder in (unbroken, tried.folder)
    ]
    assert hubs[0]['best_score'] == hubs[1]['best_score']
    assert_same(*(load(folder / best[0][0])['state_dict'] for folder in (unbroken, tried.folder)))


def test_a_kill_while_a_checkpoint_is_written_leaves_the_earlier_one(tried):
    killed, resumed = tried.legs['write'], tried.legs['term']
    assert killed.codes[0] == -9
    assert {'epoch_2.pth', 'epoch_3.pth.part'} <= set(killed.files)
    assert 'epoch_3.pth' not in killed.files
    assert 'checkpoint' in resumed.output
    assert 'tried/epoch_2.pth' in resumed.output
    assert 'epoch_3.pth.part' not in resumed.files


def test_sigterm_inside_an_epoch_saves_and_ends_all_ranks_at_one_iteration(tried):
    stopped, resumed = tried.legs['term'], tried.legs['term_val']
    assert stopped.codes == [143, 143], stopped.output
    assert 'iter_8.pth' in stopped.files
    assert 'Traceback' not in stopped.output
    assert 'tried/iter_8.pth' in resumed.output
    assert 'iter_8.pth' not in resumed.files  # the epoch's checkpoint has replaced it


def test_sigterm_inside_a_validation_loses_nothing(tried):
    stopped = tried.legs['term_val']
    assert stopped.codes == [143, 143], stopped.output
    assert 'epoch_3.pth' in stopped.files
    assert 'Epoch(val) [3]' not in stopped.output
    assert 'Epoch(val) [3]' in tried.legs['end'].output


@pytest.fixture(scope='module')
def timed(lab):
    """Legs of a run with checkpoints by time, by clocks that disagree: 4.5 and 45 min an epoch."""
    legs = []
    for fault in (dict(write='run_state/epoch_2.pth-'), dict(kill=(10,)), {}):
        legs.append(
            lab.run(
                'timed',
                *(['--resume'] if legs else []),
                fault=dict(fault, clock=(90.0, 900.0)),
                options=('default_hooks.checkpoint.interval=None',),
            )
        )
        legs[-1] += (sorted(path.name for path in (lab.folder / 'timed').glob('*.pth')),)
    return legs


def test_checkpoints_by_time_are_rank_0s_decision_and_lose_nothing(lab, unbroken, timed):
    (_, _, before), (_, restarted, killed), (codes, output, after) = timed
    assert [name for name in before if name.startswith('epoch')] == []
    assert 'training starts from the beginning' in restarted
    assert [name for name in killed if name.startswith('epoch')] == ['epoch_2.pth']
    assert codes == [0, 0], output[-3000:]
    assert 'Epoch(train) [3]' in output
    assert 'Epoch(val) [2]' not in output  # it was done
    assert [name for name in after if name.startswith('epoch')] == ['epoch_2.pth', 'epoch_4.pth']
    best = [name for name in after if name.startswith('best')]
    assert best == sorted(path.name for path in unbroken.glob('best_*'))
    first, second = (load(folder / 'epoch_4.pth') for folder in (unbroken, lab.folder / 'timed'))
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(first[part], second[part])
    assert_same(
        *(load_states(folder, 'epoch_4.pth')[1] for folder in (unbroken, lab.folder / 'timed'))
    )


def test_a_kill_while_a_process_writes_its_state_leaves_no_checkpoint_without(lab, timed):
    codes, _, files = timed[0]
    assert -9 in codes
    assert not [name for name in files if not name.startswith('best')]
    folders = sorted(path.name for path in (lab.folder / 'timed/run_state').iterdir())
    assert [name.rpartition('-')[0] for name in folders] == ['epoch_2.pth', 'epoch_4.pth']


@pytest.fixture(scope='module')
def accumulated(lab):
    """Folders of an unbroken and a stopped run, with bf16 and windows of two iterations."""
    options = (
        'optim_wrapper.accumulative_counts=2',
        'default_hooks.checkpoint.iter_interval=2',
        "model.head.negatives.scope='global'",
        'train_cfg.max_epochs=3',
    )
    codes = [lab.run('amp', '--amp', options=options)]
    stop = dict(term=(4, 0))
    codes += [lab.run('amp_stopped', '--amp', options=options, fault=stop)]
    shutil.copytree(lab.folder / 'amp_stopped', lab.folder / 'amp_killed')
    codes += [lab.run('amp_stopped', '--amp', '--resume', options=options, entropy=2)]
    return lab.folder, codes


def test_accumulation_and_bf16_resume_inside_a_window(accumulated):
    folder, codes = accumulated
    assert [code for code, _ in codes] == [[0, 0], [143, 143], [0, 0]], codes[1][1][-3000:]
    assert (folder / 'amp_killed/iter_5.pth').is_file()
    first, second = (rank['gradients'] for rank in load_states(folder / 'amp_killed', 'iter_5.pth'))
    assert any(not torch.equal(value, second[name]) for name, value in first.items())
    assert 'autocast' in codes[0][1] or 'CPUAmpOptimWrapper' in codes[0][1]
    first, second = (load(folder / name / 'epoch_3.pth') for name in ('amp', 'amp_stopped'))
    for part in ('state_dict', 'optimizer'):
        assert_same(first[part], second[part])
    banks = [
        load(path)
        for name in ('amp', 'amp_stopped')
        for path in (folder / name).glob('run_state/epoch_3.pth-*/common.pth')
    ]
    assert len(banks) == 2
    assert_same(*banks)


def test_every_so_many_iterations_a_checkpoint_replaces_the_one_before(accumulated):
    folder, codes = accumulated
    saved = re.findall(r'Saving checkpoint at (\d+) iterations', codes[0][1])
    assert saved == ['2', '4', '8']  # 6 is the end of an epoch, which has its own
    assert not list((folder / 'amp').glob('iter_*'))


def test_one_ranks_bad_loss_is_skipped_by_all(lab):
    options = ("train_cfg.bad_loss='skip'", 'train_cfg.max_epochs=1')
    codes, output = lab.run('skip', options=options, fault=dict(nan=(0, 1)))
    assert codes == [0, 0], output[-3000:]
    place = r'1 of at most 100.*rank 1: loss=nan, loss_iou=nan at epoch 1, iteration 1.*train_\d, '
    assert re.search(place, output)
    checkpoint = load(lab.folder / 'skip/epoch_1.pth')
    assert all(value.isfinite().all() for value in checkpoint['state_dict'].values())
    steps = {int(state['step']) for state in checkpoint['optimizer']['state'].values()}
    assert steps == {2}
    assert checkpoint['run_state']['loop']['skips'] == 1
    ranks = load_states(lab.folder / 'skip', 'epoch_1.pth')
    banks = [rank['parts']['model.head.negatives']['video_ids'] for rank in ranks]
    assert [len(videos) for videos in banks] == [3, 3]  # of five; the skipped two are not there


def test_one_ranks_bad_loss_stops_all_with_its_message(lab):
    codes, output = lab.run('stop', fault=dict(nan=(4, 1)))
    assert codes[1] == 1
    assert codes[0] in (1, -15)
    line = re.search(r'^Error on rank 1: loss=nan.*$', output, re.MULTILINE)
    assert line, output[-3000:]
    assert 'epoch 2, iteration 2, in the batch of videos train_' in line[0]
    assert 'Traceback' not in output


def test_one_ranks_bad_gradient_is_skipped_by_all(lab):
    options = ("train_cfg.bad_loss='skip'", 'train_cfg.max_epochs=1')
    codes, output = lab.run('skip_gradient', options=options, fault=dict(gradient=(0, 1)))
    assert codes == [0, 0], output[-3000:]
    # the gradient is the mean of the ranks' where it is looked at
    place = (
        r'1 of at most 100.*rank 0, 1: gradient norm=nan \(from .*at epoch 1, iteration 1, '
        r'in the batch of videos train_\d, train_\d, train_\d, train_\d\.'
    )
    assert re.search(place, output), output[-3000:]
    checkpoint = load(lab.folder / 'skip_gradient/epoch_1.pth')
    assert all(value.isfinite().all() for value in checkpoint['state_dict'].values())
    steps = {int(state['step']) for state in checkpoint['optimizer']['state'].values()}
    assert steps == {2}
    banks = [
        rank['parts']['model.head.negatives']['video_ids']
        for rank in load_states(lab.folder / 'skip_gradient', 'epoch_1.pth')
    ]
    assert [len(videos) for videos in banks] == [3, 3]  # of five


def test_one_ranks_bad_gradient_in_a_window_stops_all_with_its_message(lab):
    options = ('optim_wrapper.accumulative_counts=2',)
    codes, output = lab.run('stop_gradient', options=options, fault=dict(gradient=(0, 1)))
    assert codes[1] == 1
    assert codes[0] in (1, -15)
    line = re.search(r'^Error on rank 1: gradient norm=nan.*$', output, re.MULTILINE)
    assert line, output[-3000:]
    assert 'epoch 1, iteration 1, in the batch of videos train_' in line[0]
    assert 'Traceback' not in output
    assert not list((lab.folder / 'stop_gradient').glob('*.pth'))


def test_a_signal_after_the_ranks_agreed_counts_for_the_next_iteration(lab):
    codes, output = lab.run('late', fault=dict(late_term=(3, 0)))
    assert codes == [143, 143], output[-3000:]
    assert 'stopping after iteration 5' in output
    assert (lab.folder / 'late/iter_5.pth').is_file()


def test_an_interrupt_of_one_rank_saves_and_ends_all_with_the_code_of_an_interrupt(lab):
    codes, output = lab.run('interrupted', fault=dict(interrupt=(1, 1)))
    assert codes == [130, 130], output[-3000:]
    assert 'Traceback' not in output
    assert (lab.folder / 'interrupted/iter_2.pth').is_file()


def test_all_ranks_of_a_second_training_in_a_folder_are_refused_and_write_nothing(lab):
    folder = lab.folder / 'in_use'
    with in_another_process(lambda: train_in(folder)) as process:
        codes, output = lab.run('in_use')
    assert set(codes) in ({1}, {1, -15}), output[-3000:]  # the first to end may end the other
    assert f'in_use/training.json is in use by process {process} on' in output
    assert 'Traceback' not in output
    assert {path.name for path in folder.iterdir()} == {'training.json', 'training.json.lock'}


def test_a_checkpoint_from_inside_an_epoch_needs_as_many_ranks(lab, accumulated):
    assert (lab.folder / 'amp_killed/iter_5.pth').is_file()
    codes, output = lab.run('amp_killed', '--resume', ranks=1)
    assert codes == [1]
    assert 'saved by 2 processes, and this run has 1' in output


def test_a_whole_epochs_checkpoint_goes_on_with_another_number_of_ranks(lab, unbroken):
    codes, output = lab.run('one_rank', '--resume', unbroken / 'epoch_3.pth', ranks=1)
    assert codes == [0], output[-3000:]
    assert 'saved by 2 processes, and this run has 1' in output
    seeds = [
        load(path / 'epoch_4.pth')['meta']['seed'] for path in (unbroken, lab.folder / 'one_rank')
    ]
    assert seeds[0] == seeds[1]
