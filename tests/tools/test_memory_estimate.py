"""The estimate of a training step's memory against what a step takes."""

import argparse
import json

import pytest
import torch
from benchmark import prepared
from helpers.run_tool import output_of
from helpers.tiny_corpus import write_config, write_corpus
from memory_estimate import MB, LiveStorages, MemoryEstimate, growth_on_cpu, measured

WIDE = {  # enough that a batch needs more than the weights
    'model.backbone.out_channels': 64,
    'model.neck.channels': 64,
    'model.neck.embed_channels': 64,
    'model.text_encoder.embed_channels': 64,
}
MOMENTS = 36


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('memory')
    return write_config(folder / 'tiny.py', write_corpus(folder / 'corpus'))


@pytest.fixture
def arguments(config):
    with prepared('cpu'):
        yield lambda **values: argparse.Namespace(
            **(
                dict(config=config, batch_size=16, gpus=1, conv_mode='dense', dtype='fp32')
                | dict(frozen=False, cfg_options=dict(WIDE))
                | values
            )
        )


@pytest.mark.parametrize(
    'how',
    [
        dict(dtype='bf16', frozen=True),
        dict(conv_mode='sparse'),
        dict(cfg_options=WIDE | {'model.head.negatives.piece': 8}),
    ],
    ids=str,
)
def test_a_step_takes_what_is_estimated(arguments, how):
    args = arguments(**how)
    parts = MemoryEstimate(args).peak(args.batch_size)
    state = parts['weights'] + parts['optimizer state']
    assert parts.total() > 2 * state  # or the test would say nothing of a step
    needed = measured(args)
    assert parts.total() == pytest.approx(needed, rel=0.15)
    assert parts.total() - state == pytest.approx(needed - state, rel=0.15)


def test_parts_are_those_of_the_config(arguments):
    options = dict(scope='global', videos_per_step=12)
    options = WIDE | {'model.head.negatives': options}
    args = arguments(gpus=3, batch_size=None, cfg_options=options)
    estimate = MemoryEstimate(args)
    parts = estimate.peak(estimate.bench.batch_size)  # 4
    weights = sum(weight.nbytes for weight in estimate.model.parameters())
    assert parts['weights'] == pytest.approx(weights, rel=0.02)  # and statistics of BatchNorm
    assert parts['buckets of DDP'] == weights
    assert parts['optimizer state'] == pytest.approx(2 * weights, rel=0.01)  # AdamW
    rows = 4 * MOMENTS * 64  # bytes of a video's moments
    # while they are gathered: this GPU's, padded; those of all, one by one; and joined
    assert parts['embeddings of all GPUs'] == pytest.approx((1 + 3 + 3) * 4 * rows, rel=0.15)


def test_the_largest_batch_fits_and_one_a_little_larger_does_not(arguments):
    estimate = MemoryEstimate(arguments(batch_size=4))
    limit = 4 * MB
    largest = estimate.largest(limit)
    assert largest > 8
    assert estimate.peak(largest).total() <= limit < estimate.peak(largest * 21 // 20 + 1).total()
    assert estimate.largest(estimate.peak(1).total() - 1) == 0


def test_storages_count_while_they_live_and_once():
    with LiveStorages() as storages:
        kept = torch.ones(2**18)  # 1 MB
        view = kept.view(2, -1).t()
        storages.part = 'sum'
        total = (view * 2).sum() + kept.sum()
        del total
    assert (storages.live['other'], storages.live['sum']) == (MB, 0)
    assert storages.at_peak['other'] == MB
    assert storages.at_peak['sum'] == pytest.approx(MB, abs=64)


def test_growth_is_the_most_that_lives_at_once():
    def run():
        for _ in range(3):
            torch.ones(2**20)  # 4 MB
        torch.ones(2**19)

    assert growth_on_cpu(run) == 4 * MB


def test_the_tool_prints_and_writes_its_figures(config, tmp_path):
    line = 'analysis_tools/memory_estimate.py {} --batch-size 2 --measure 2 --json {} --reserve {}'
    output = output_of(line, config, tmp_path / 'x.json', 0.9999)
    found = json.loads((tmp_path / 'x.json').read_text())
    assert found['total_mb'] == pytest.approx(sum(found['parts_mb'].values()))
    assert [row['batch_size'] for row in found['measured']] == [2]
    assert 1 < found['largest_batch']['24'] < found['largest_batch']['141']
    for text in ('optimizer state', '2 videos on a CPU', f'24 GB: {found["largest_batch"]["24"]}'):
        assert text in output


@pytest.mark.parametrize('option', ['--conv-mode nonsense', '--reserve 2', '--reserve -0.1'])
def test_values_that_do_not_exist_are_refused_at_once(option):
    line = f'analysis_tools/memory_estimate.py mmn_tacos.py {option}'
    assert option.split()[0] in output_of(line, code=2)
