"""Runs that are killed, stopped and fed bad losses, in two real processes over gloo.

A run of four epochs that nothing happens to is the measure. Another one goes through everything
that a long run meets, and has to end with the same weights, bit for bit.
"""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from helpers.faults import videos
from helpers.processes import in_another_process, train_in
from helpers.tiny_corpus import NUM_SEGMENTS, write_config, write_corpus
from helpers.tiny_run import load

# Ten videos, two ranks of two: three iterations an epoch, the last one short. Dropout is on, the
# pipeline draws random numbers in two persistent workers, validation draws some every epoch, and
# no seed is configured.
SURVIVAL = f"""
custom_imports = dict(imports=['mmn_plugin', 'helpers.faults'])
custom_hooks = [dict(type='FaultHook')]
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [dict(type='MultiStepLR', milestones=[2], gamma=0.5),
                   dict(type='LinearLR', start_factor=0.1, end=8, by_epoch=False)]
default_hooks = dict(
    freeze_language_model=dict(through_epoch=2), negatives=dict(full_through_epoch=2),
    checkpoint=dict(interval=1, max_keep_ckpts=-1))
randomness = dict(_delete_=True, seed=None)
workers = dict(num_workers=2, persistent_workers=True)
train_dataloader = dict(**workers, dataset=dict(pipeline=[
    dict(type='LoadClipFeatures'), dict(type='NoiseTransform'),
    dict(type='PoolClipFeatures', num_segments={NUM_SEGMENTS}), dict(type='PackGroundingInputs')]))
val_dataloader = dict(**workers)
"""
HARD_BATCHES = (
    'train_dataloader.sampler._delete_=True',
    "train_dataloader.sampler.type='SimilarVideoSampler'",
    'train_dataloader.sampler.group_size=4',
    "default_hooks.similar_videos.type='SimilarVideoHook'",
    "default_hooks.similar_videos.by='model'",
    'default_hooks.similar_videos.interval=3',
)
EPOCHS, STEPS = 4, 3
pytestmark = pytest.mark.skipif(not hasattr(__import__('os'), 'fork'), reason='needs fork')


@pytest.fixture(scope='module')
def lab(tmp_path_factory, zygote):
    """A folder with corpus and config, and what starts runs in it."""
    folder = tmp_path_factory.mktemp('survival')
    corpus = write_corpus(folder / 'corpus', train=10)
    base = write_config(folder / 'tiny.py', corpus, epochs=EPOCHS)
    config = folder / 'survival.py'
    config.write_text(f"_base_ = '{base.name}'\n{SURVIVAL}")

    def run(name, *arguments, entropy=1, fault=None, options=(), **more):
        output = folder / f'{name}_{len(list(folder.iterdir()))}.txt'
        given = [config, '--work-dir', folder / name, *arguments]
        given += ['--cfg-options', *options] if options else []
        environment = dict(MMN_ENTROPY=str(entropy), MMN_FAULT=repr(dict(fault or {}, dump=True)))
        codes, text = zygote.run(*given, output=output, **environment, **more)
        files = {path.name for path in (folder / name).glob('*.pth*')}
        return SimpleNamespace(codes=codes, output=text, files=files, folder=folder / name)

    return SimpleNamespace(folder=folder, config=config, run=run)


@pytest.fixture(scope='module')
def unbroken(lab):
    """Work folder of the run that nothing happens to."""
    run = lab.run('unbroken')
    assert run.codes == [0, 0], run.output
    return run.folder


@pytest.fixture(scope='module')
def tried(lab, unbroken):
    """Every leg of the run that everything happens to: codes, output and files."""
    faults = dict(
        kill=dict(kill=(4, 1)),  # SIGKILL of one rank
        kill_val=dict(kill_val=(6,)),  # of both, between a checkpoint and its validation
        write=dict(write='epoch_3.pth.part'),  # while a checkpoint is written
        term=dict(group=(7, 1)),  # SIGTERM to one rank and its workers, inside an epoch
        term_val=dict(term_val=(9, 0)),  # SIGTERM inside a validation
        interrupt=dict(interrupt=(10, 1)),  # Ctrl-C in one rank
        end={},
    )
    legs = {}
    for entropy, (name, fault) in enumerate(faults.items(), start=1):
        resume = ['--resume'] if legs else []
        legs[name] = lab.run('tried', *resume, entropy=entropy, fault=fault)
    return legs


def load_states(folder, checkpoint):
    """What each of two ranks wrote for a checkpoint."""
    states = folder / 'run_state' / load(folder / checkpoint)['run_state']['folder']
    return [load(states / f'rank_{rank}.pth') for rank in (0, 1)]


def of_rank(folder, rank, epoch):
    """Weights that a rank had after an epoch."""
    return load(folder / f'rank{rank}_epoch{epoch}.pth')


def assert_same(first, second):
    """Bit for bit, in every tensor and number."""
    if torch.is_tensor(first):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            assert_same(first[name], second[name])
    elif isinstance(first, list | tuple):
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


def test_a_run_that_was_killed_and_stopped_ends_with_the_same_weights(unbroken, tried):
    end = tried['end']
    assert end.codes == [0, 0], end.output
    first, second = (load(folder / 'epoch_4.pth') for folder in (unbroken, end.folder))
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(first[part], second[part])
    assert first['meta']['seed'] == second['meta']['seed']
    first, second = (load_states(folder, 'epoch_4.pth') for folder in (unbroken, end.folder))
    assert_same(first[0]['random'], second[0]['random'])
    assert_same(first[1], second[1])


def test_no_sample_is_repeated_or_left_out_and_each_gets_the_same_noise(unbroken, tried):
    for rank in (0, 1):
        assert videos(tried['end'].folder, rank) == videos(unbroken, rank)
        assert len(videos(unbroken, rank)) == STEPS * EPOCHS
    sums = [line.split()[-1] for line in videos(unbroken, 0).values()]  # there is noise
    assert len(set(sums)) == len(sums)
    states = [load_states(unbroken, f'epoch_{epoch}.pth')[0]['random'] for epoch in (3, 4)]
    assert not torch.equal(states[0]['torch'], states[1]['torch'])  # and dropout


def test_ranks_share_weights_and_batchnorms_statistics(unbroken):
    for epoch in range(1, EPOCHS + 1):
        first, second = (of_rank(unbroken, rank, epoch) for rank in (0, 1))
        statistics = {name for name in first if name.endswith(('running_mean', 'running_var'))}
        weights = first.keys() - statistics
        assert_same(*({name: rank[name] for name in weights} for rank in (first, second)))
        assert statistics
    weights, second = (
        load(unbroken / 'epoch_4.pth')['state_dict'],
        load_states(unbroken, 'epoch_4.pth')[1],
    )
    assert all(torch.equal(second['buffers'][name], weights[name]) for name in statistics)


def test_the_language_model_stands_still_while_frozen_and_moves_at_a_tenth_after(unbroken):
    weights = [of_rank(unbroken, 0, epoch) for epoch in range(1, EPOCHS + 1)]
    bert = [name for name in weights[0] if 'text_encoder.bert.' in name]
    others = [name for name in weights[0] if name.startswith('backbone.')]

    def moved(names, epoch):
        before, after = weights[epoch - 2], weights[epoch - 1]
        return max((after[name] - before[name]).abs().max().item() for name in names)

    assert moved(bert, 2) == 0
    rate = 1e-3 * 0.5  # an Adam step moves a weight by about the learning rate
    for epoch in (3, 4):
        assert 0.05 * rate / 10 < moved(bert, epoch) < 1.1 * STEPS * rate / 10
        assert moved(others, epoch) > 5 * moved(bert, epoch)
    states = [load(unbroken / f'epoch_{epoch}.pth')['optimizer']['state'] for epoch in (2, 3)]
    assert len(states[1]) - len(states[0]) == len(bert)  # frozen, it has none


def test_validation_in_training_equals_a_test_of_that_checkpoint(lab, unbroken):
    checkpoint, folder = unbroken / 'epoch_4.pth', lab.folder / 'test'
    run = lab.run('test', checkpoint, tool='test.py')
    assert run.codes == [0, 0], run.output[-3000:]
    (scalars,) = unbroken.glob('*/vis_data/scalars.json')
    lines = map(json.loads, scalars.read_text().splitlines())
    validated = [entry for entry in lines if 'grounding/mIoU' in entry][-1]
    (metrics,) = (path for path in folder.glob('*/*.json') if path.parent.name == path.stem)
    tested = json.loads(metrics.read_text())
    names = [name for name in validated if name.startswith('grounding/')]
    assert len(names) > 5
    assert {name: tested[name] for name in names} == {name: validated[name] for name in names}


def test_a_killed_rank_ends_the_others(tried):
    leg = tried['kill']
    assert leg.codes[1] == -9
    assert leg.codes[0] in (1, -15)
    assert 'epoch_1.pth' in leg.files
    assert 'epoch_2.pth' not in leg.files


def test_a_validation_that_a_kill_prevented_is_made_up_for_and_counts(unbroken, tried):
    killed, resumed = tried['kill_val'], tried['write']
    assert -9 in killed.codes
    assert 'epoch_2.pth' in killed.files
    assert 'Epoch(val) [2]' not in killed.output
    assert resumed.output.index('Epoch(val) [2]') < resumed.output.index('Epoch(train) [3]')
    folders = (unbroken, tried['end'].folder)
    best = [[path.name for path in folder.glob('best_*')] for folder in folders]
    assert best[0] == best[1]
    hubs = [load(folder / 'epoch_4.pth')['message_hub']['runtime_info'] for folder in folders]
    assert hubs[0]['best_score'] == hubs[1]['best_score']
    assert_same(*(load(folder / best[0][0])['state_dict'] for folder in folders))


def test_a_kill_while_a_checkpoint_is_written_leaves_the_earlier_one(tried):
    killed, resumed = tried['write'], tried['term']
    assert killed.codes[0] == -9
    assert {'epoch_2.pth', 'epoch_3.pth.part'} <= killed.files
    assert 'epoch_3.pth' not in killed.files
    assert 'tried/epoch_2.pth' in resumed.output
    assert 'epoch_3.pth.part' not in resumed.files


def test_sigterm_inside_an_epoch_saves_and_ends_all_ranks_at_one_iteration(tried):
    stopped, resumed = tried['term'], tried['term_val']
    assert stopped.codes == [143, 143], stopped.output
    assert 'iter_8.pth' in stopped.files
    assert 'Traceback' not in stopped.output
    assert 'tried/iter_8.pth' in resumed.output
    assert 'iter_8.pth' not in resumed.files  # the epoch's checkpoint has replaced it


def test_sigterm_inside_a_validation_loses_nothing(tried):
    stopped, resumed = tried['term_val'], tried['interrupt']
    assert stopped.codes == [143, 143], stopped.output
    assert 'epoch_3.pth' in stopped.files
    assert 'Epoch(val) [3]' not in stopped.output
    assert 'Epoch(val) [3]' in resumed.output


def test_an_interrupt_of_one_rank_saves_and_ends_all_with_the_code_of_an_interrupt(tried):
    stopped = tried['interrupt']
    assert stopped.codes == [130, 130], stopped.output[-3000:]
    assert 'Traceback' not in stopped.output
    assert 'iter_11.pth' in stopped.files


@pytest.fixture(scope='module')
def accumulated(lab):
    """An unbroken and a stopped run with bf16, pieces, windows of two iterations, and checkpoints
    by clocks that disagree on how long an epoch lasts: 4.5 and 45 min.
    """
    options = (
        'optim_wrapper.accumulative_counts=2',
        'default_hooks.checkpoint.interval=None',
        'default_hooks.checkpoint.iter_interval=4',
        "model.head.negatives.scope='global'",
        'model.head.negatives.exclude_same_text=True',
        *HARD_BATCHES,
        'model.head.negatives.videos_per_step=4',
        'model.head.negatives.piece=1',
        'train_cfg.max_epochs=3',
    )
    clock = dict(clock=(90.0, 900.0))
    legs = [lab.run('amp', '--amp', options=options, fault=clock)]
    # SIGTERM after the ranks have agreed on iteration 4, so that it counts for the next
    legs += [lab.run('stopped', '--amp', options=options, fault=clock | dict(late_term=(3, 0)))]
    shutil.copytree(legs[1].folder, lab.folder / 'inside')
    legs += [lab.run('stopped', '--amp', '--resume', options=options, entropy=2, fault=clock)]
    return legs


def test_accumulation_bf16_and_pieces_resume_inside_a_window(lab, accumulated):
    whole, stopped, resumed = accumulated
    codes = [leg.codes for leg in accumulated]
    assert codes == [[0, 0], [143, 143], [0, 0]], stopped.output[-3000:]
    assert 'stopping after iteration 5' in stopped.output
    first, second = (
        state['gradients'] for state in load_states(lab.folder / 'inside', 'iter_5.pth')
    )
    assert any(not torch.equal(value, second[name]) for name, value in first.items())
    assert 'CPUAmpOptimWrapper' in whole.output
    first, second = (load(leg.folder / 'epoch_3.pth') for leg in (whole, resumed))
    for part in ('state_dict', 'optimizer'):
        assert_same(first[part], second[part])
    paths = [
        next(leg.folder.glob('run_state/epoch_3.pth-*/common.pth')) for leg in accumulated[::2]
    ]
    common = [load(path) for path in paths]
    assert common[0]['hook.SimilarVideoHook']['epoch'] == 0  # kept where the run was resumed
    assert_same(*common)
    assert_same(*(of_rank(whole.folder, rank, 3) for rank in (0, 1)))
    drawn = [videos(whole.folder, rank) for rank in (0, 1)]
    assert drawn == [videos(resumed.folder, rank) for rank in (0, 1)]
    for epoch in range(3):
        steps = [line for rank in drawn for at, line in rank.items() if at.startswith(f'{epoch} ')]
        names = re.findall(r'train_\d', ' '.join(steps))
        assert sorted(names) == [f'train_{i}' for i in range(10)]


def test_checkpoints_by_time_are_rank_0s_decision_beside_those_of_every_so_many_iterations(
    accumulated,
):
    whole = accumulated[0]
    saved = re.findall(r'Saving checkpoint at (\d+) (epoch|iteration)s', whole.output)
    assert saved == [('4', 'iteration'), ('8', 'iteration'), ('3', 'epoch')]
    assert {name for name in whole.files if name.startswith(('epoch', 'iter'))} == {'epoch_3.pth'}


def test_a_checkpoint_from_inside_an_epoch_needs_as_many_ranks(lab, accumulated):
    run = lab.run('inside', '--resume', ranks=1)
    assert run.codes == [1]
    assert 'saved by 2 processes, and this run has 1' in run.output


def test_a_whole_epochs_checkpoint_goes_on_with_another_number_of_ranks(lab, unbroken):
    run = lab.run('one_rank', '--resume', unbroken / 'epoch_3.pth', ranks=1)
    assert run.codes == [0], run.output[-3000:]
    assert 'saved by 2 processes, and this run has 1' in run.output
    seeds = [load(path / 'epoch_4.pth')['meta']['seed'] for path in (unbroken, run.folder)]
    assert seeds[0] == seeds[1]


def test_one_ranks_bad_loss_is_skipped_by_all(lab):
    options = ("train_cfg.bad_loss='skip'", 'train_cfg.max_epochs=1')
    run = lab.run('skip', options=options, fault=dict(nan=(0, 1), gradient=(1, 1)))
    assert run.codes == [0, 0], run.output[-3000:]
    place = (
        r'1 of at most 100.*: rank 1: loss=nan, loss_iou=nan at epoch 1, iteration 1.*train_\d, '
    )
    assert re.search(place, run.output)
    # the gradient is the mean of the ranks' where it is looked at
    gradient = r'gradient norm=nan \(from .*at epoch 1, iteration 2, in the batch of videos train_'
    assert re.search(rf'2 of at most 100.*: rank 0: {gradient}.*; rank 1: {gradient}', run.output)
    checkpoint = load(run.folder / 'epoch_1.pth')
    assert all(value.isfinite().all() for value in checkpoint['state_dict'].values())
    steps = {int(state['step']) for state in checkpoint['optimizer']['state'].values()}
    assert steps == {1}
    assert checkpoint['run_state']['loop']['skips'] == 2


def test_one_ranks_bad_loss_stops_all_with_its_message(lab):
    run = lab.run('stop', fault=dict(nan=(4, 1)))
    assert set(run.codes) in ({1}, {1, -15}), run.output[-3000:]  # the first may end the other
    told = r'^Error(?: on rank 1|: rank 1): loss=nan.*$'
    line = re.search(told, run.output, re.MULTILINE)
    assert line, run.output[-3000:]
    assert 'epoch 2, iteration 2, in the batch of videos train_' in line[0]
    assert 'Traceback' not in run.output


def test_all_ranks_of_a_second_training_in_a_folder_are_refused_and_write_nothing(lab):
    folder = lab.folder / 'in_use'
    with in_another_process(lambda: train_in(folder)) as process:
        run = lab.run('in_use')
    assert set(run.codes) in ({1}, {1, -15}), run.output[-3000:]  # the first may end the other
    assert f'in_use/training.json is in use by process {process} on' in run.output
    assert 'Traceback' not in run.output
    assert {path.name for path in folder.iterdir()} == {'training.json', 'training.json.lock'}
