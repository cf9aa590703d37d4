"""Two processes train as one: across the unfreezing epoch, resumed on each side of it."""

import pytest
import torch
from helpers.tiny_corpus import write_config, write_corpus
from helpers.work_folder import final_metrics, logged_scalars

EXTRA = """
custom_imports = dict(imports=['mmn_plugin', 'helpers.rank_dump'])
custom_hooks = [dict(type='RankDumpHook')]
optim_wrapper = dict(optimizer=dict(lr=1e-3))
default_hooks = dict(
    freeze_language_model=dict(through_epoch=2), negatives=dict(full_through_epoch=3),
    checkpoint=dict(interval=1, max_keep_ckpts=-1))
"""
LEARNING_RATE = 1e-3
STEPS_PER_EPOCH = 2  # 8 videos, 2 ranks of 2


@pytest.fixture(scope='module')
def run(tmp_path_factory, zygote):
    """Epoch 1 frozen; resumed for 2 (frozen) and 3 (trained); resumed for 4; then tested."""
    folder = tmp_path_factory.mktemp('distributed')
    config = write_config(folder / 'tiny.py', write_corpus(folder / 'corpus'), extra=EXTRA)
    output = folder / 'output.txt'
    for epochs in (1, 3, 4):
        codes, text = zygote.run(
            config,
            '--work-dir',
            folder,
            '--resume',
            '--cfg-options',
            f'train_cfg.max_epochs={epochs}',
            output=output,
        )
        assert codes == [0, 0], text[-6000:]
    codes, text = zygote.run(
        config, folder / 'epoch_4.pth', '--work-dir', folder / 'test', tool='test.py', output=output
    )
    assert codes == [0, 0], text[-6000:]
    return folder


def language_model(weights):
    return {name: value for name, value in weights.items() if 'text_encoder.bert.' in name}


def of_rank(run, rank, epoch):
    return torch.load(run / f'rank{rank}_epoch{epoch}.pth', weights_only=True)


def largest_change(before, after):
    return max((after[name] - value).abs().max().item() for name, value in before.items())


@pytest.mark.parametrize('epoch', [1, 2, 3, 4])
def test_both_ranks_hold_the_same_weights_after_every_epoch(run, epoch):
    first, second = of_rank(run, 0, epoch), of_rank(run, 1, epoch)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], value) for name, value in second.items())


def test_the_language_model_stands_still_while_frozen_and_moves_at_a_tenth_after(run):
    weights = [of_rank(run, 0, epoch) for epoch in (1, 2, 3, 4)]
    bert = [language_model(w) for w in weights]
    assert largest_change(bert[0], bert[1]) == 0
    # An Adam step moves a weight by about the learning rate.
    for before, after in ((bert[1], bert[2]), (bert[2], bert[3])):  # 4 is another resumed run
        moved = largest_change(before, after)
        assert 0.5 * LEARNING_RATE / 10 < moved < 1.1 * STEPS_PER_EPOCH * LEARNING_RATE / 10
    others = {k: v for k, v in weights[1].items() if k.startswith('backbone.')}
    assert largest_change(others, weights[2]) > 5 * moved


def test_a_frozen_language_model_has_no_optimizer_state(run):
    states = [
        torch.load(run / f'epoch_{epoch}.pth', weights_only=False)['optimizer']['state']
        for epoch in (2, 3)
    ]
    bert = language_model(of_rank(run, 0, 1))
    assert len(states[1]) - len(states[0]) == len(bert)


def test_validation_in_training_equals_a_test_of_that_checkpoint(run):
    validated = [entry for entry in logged_scalars(run) if 'grounding/mIoU' in entry][-1]
    tested = final_metrics(run / 'test')
    names = [name for name in validated if name.startswith('grounding/')]
    assert len(names) > 5
    assert {name: tested[name] for name in names} == {name: validated[name] for name in names}
