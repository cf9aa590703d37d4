"""The parts of the benchmark tool."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmn_plugin.apis.benchmark import (
    TASKS,
    Benchmark,
    EncoderWork,
    Subject,
    Variant,
    interleave,
    ratio,
    spread,
    timed,
)
from mmn_plugin.apis.benchmark.annotation_statistics import AnnotationStatistics
from mmn_plugin.apis.benchmark.peak_memory import _measure, can_measure, peak_of
from mmn_plugin.apis.benchmark.phase_timer import PhaseTimer
from mmn_plugin.apis.benchmark.recorded_annotations import RECORDED_ANNOTATIONS
from mmn_plugin.precision import tf32_allowed
from mmn_plugin.structures import MomentGrid


def test_operations_equal_a_hand_count():
    # 4 clips, all 10 moments; two 3x3 layers: padded by 2, so 6 x 6, then 4 x 4
    work = EncoderWork.of(MomentGrid(4, [3]), channels=2, kernel_size=3, num_layers=2)
    assert work.dense == (36, 16)
    # A valid cell (i, j), i <= j, reaches 3 x 3 cells of the first output, in which the map is
    # shifted by one: rows i .. i + 2, columns j .. j + 2. Row by row 6, 6, 6, 5, 4, 3 of them.
    assert work.train == (30, 16)
    # The 10 valid cells of the last output need rows i .. i + 2, columns j .. j + 2: the same.
    assert work.test == (30, 10)
    assert work.per_cell == 2 * 2 * 2 * 9
    assert work.flops(3, 'dense', training=True) == 3 * 52 * 72 * 3
    assert work.flops(1, 'test', training=False) == 40 * 72


@pytest.mark.parametrize(
    ('grid', 'kernel_size', 'num_layers', 'train', 'test'),
    [
        ((128, [15, 8, 8, 8]), 5, 8, 0.44, 0.54),
        ((64, [15, 8, 8]), 9, 4, 0.35, 0.50),
        ((16, [15]), 5, 8, 0.45, 0.51),
    ],
)
def test_work_that_the_published_grids_spare(grid, kernel_size, num_layers, train, test):
    work = EncoderWork.of(MomentGrid(*grid), 512, kernel_size, num_layers)
    left = [
        work.flops(1, cells, False) / work.flops(1, 'dense', False) for cells in ('train', 'test')
    ]
    assert [round(1 - share, 2) for share in left] == [train, test]


def test_variants_are_all_combinations_and_the_plain_one_comes_first():
    variants = Variant.product(['dense', 'sparse'], ['fp32', 'bf16'], channels_last=True)
    assert list(map(str, variants)) == [
        'dense fp32',
        'sparse fp32',
        'dense bf16',
        'sparse bf16',
        'dense fp32 channels_last',
        'sparse fp32 channels_last',
        'dense bf16 channels_last',
        'sparse bf16 channels_last',
    ]


def test_a_variant_sets_the_precision_and_takes_it_back():
    before = tf32_allowed()
    for dtype, allowed in (('fp32', False), ('tf32', True), ('bf16', False)):
        with Variant(dtype=dtype).backends():
            assert tf32_allowed() == (allowed, allowed)
        assert tf32_allowed() == before
    with Variant(dtype='bf16').autocast('cpu'):
        assert torch.ones(2, 2).mm(torch.ones(2, 2)).dtype == torch.bfloat16
    with pytest.raises(ValueError, match='tf32 is for CUDA'):
        Variant(dtype='tf32').check('cpu')


def test_subjects_run_in_turns():
    order = []
    subjects = [Subject(name, lambda name=name: order.append(name)) for name in 'ABC']
    interleave(subjects, repeats=2, warmup=1)
    assert order == list('ABCABCABC')
    assert [len(subject.seconds) for subject in subjects] == [2, 2, 2]


def test_ratio_compares_within_a_round():
    slow = Subject('slow', None, seconds=[2.0, 20.0, 4.0])  # the machine was busy in the second
    fast = Subject('fast', None, seconds=[1.0, 10.0, 2.0])
    assert ratio(fast, slow) == 2
    assert ratio(slow, slow) == 1


def test_spread_is_half_the_distance_between_quartiles():
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(1 / 3)
    assert spread([7.0]) == 0


def test_a_typical_batch_has_the_sentences_of_all_videos():
    for (name, split), recorded in RECORDED_ANNOTATIONS.items():
        statistics = AnnotationStatistics.of_dataset(
            dict(data_root=f'data/{name}/', ann_file='absent.json'), split
        )
        assert len(statistics.sentences) == sum(recorded['videos'].values())
        mean = statistics.sentences.mean()
        assert np.mean(statistics.sentences_of(25)) == pytest.approx(mean, rel=0.05)


def test_what_is_recorded_is_what_the_annotation_files_hold(shared):
    for name, split in (('tacos', 'test'), ('charades_sta', 'test')):
        path = shared / 'data' / 'annotations' / name / f'{split}.json'
        dataset = dict(data_root=f'data/{name}/', ann_file='absent.json')
        recorded = AnnotationStatistics.of_dataset(dataset, split)
        counted = AnnotationStatistics.of_dataset(dataset, split, str(path))
        assert recorded.sentences.tolist() == counted.sentences.tolist()
        assert np.median(recorded.tokens) == pytest.approx(np.median(counted.tokens), abs=1)


def test_an_unknown_dataset_without_annotations_is_refused():
    with pytest.raises(FileNotFoundError, match='nothing is recorded of a dataset'):
        AnnotationStatistics.of_dataset(dict(data_root='data/mine/', ann_file='a.json'), 'train')


class Slow(nn.Module):
    """Passes time on a clock of its own."""

    seconds = 0.0

    def perf_counter(self):
        return self.seconds

    def forward(self, x):
        self.seconds += 2
        x.register_hook(lambda gradient: setattr(self, 'seconds', self.seconds + 3))
        return x * 2

    def method(self):
        self.seconds += 1


def test_phases_are_counted_and_nothing_stays_behind(monkeypatch):
    module, inputs = Slow(), torch.ones(2, requires_grad=True)
    monkeypatch.setattr('mmn_plugin.apis.benchmark.phase_timer.time', module)
    with PhaseTimer() as timer:
        timer.watch_module(module, 'forward', 'backward')
        timer.watch_method(module, 'method', 'method')
        for _ in range(2):
            module(inputs).sum().backward()
        module.method()
    assert timer.seconds == dict(forward=4, backward=6, method=1)
    counted = dict(timer.seconds)
    module(inputs)
    module.method()
    assert dict(timer.seconds) == counted


def take_memory(megabytes):
    kept = torch.ones(2**18 * 40)  # 40 MB that are there before
    return lambda: torch.ones(2**18 * megabytes).sum() + kept[0]


@pytest.mark.skipif(not can_measure('cpu'), reason='needs Linux to measure a peak')
def test_the_peak_is_what_a_step_takes_beyond_what_was_there():
    assert peak_of(take_memory, 60) == pytest.approx(60, abs=5)


@pytest.fixture
def gpus(monkeypatch):
    """Stand-in for CUDA that knows the current device, and which one each call is about."""
    state = SimpleNamespace(current='cuda:0', asked=[], allocated=iter([3 * 2**20, 10 * 2**20]))

    @contextmanager
    def device(name):
        before, state.current = state.current, name
        yield
        state.current = before

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            state.asked.append(state.current)

        def elapsed_time(self, _):
            return 5.0

    monkeypatch.setattr(torch.cuda, 'device', device)
    monkeypatch.setattr(torch.cuda, 'Event', Event)
    for name in ('synchronize', 'reset_peak_memory_stats'):
        monkeypatch.setattr(torch.cuda, name, state.asked.append)
    for name in ('memory_allocated', 'max_memory_allocated'):
        monkeypatch.setattr(
            torch.cuda, name, lambda asked: state.asked.append(asked) or next(state.allocated)
        )
    return state


def test_events_belong_to_the_device_that_is_timed(gpus):
    ran_on = []
    assert timed(lambda: ran_on.append(gpus.current), 'cuda:1') == 0.005
    assert ran_on == ['cuda:1']
    assert gpus.asked == ['cuda:1'] * 4  # two events, two waits
    assert gpus.current == 'cuda:0'


def test_memory_is_that_of_the_device_that_is_measured(gpus, monkeypatch):
    monkeypatch.setattr(torch, 'set_num_threads', lambda _: None)
    sent, ran_on = [], []

    def prepare():
        ran_on.append(gpus.current)
        return lambda: ran_on.append(gpus.current)

    _measure(SimpleNamespace(send=sent.append), prepare, (), 'cuda:1', 1)
    assert sent == [7]  # MB above the 3 that were there
    assert set(gpus.asked) == set(ran_on) == {'cuda:1'}


def test_a_task_is_built_and_run_with_its_device_as_the_current_one(gpus, monkeypatch):
    seen = []

    class Task:
        def __init__(self, settings):
            seen.append(gpus.current)

        def subjects(self):
            seen.append(gpus.current)
            return []

        probes = subjects

    monkeypatch.setitem(TASKS, 'train', Task)
    Benchmark('train', SimpleNamespace(device='cuda:1'), memory=False, profile=False).run()
    assert seen == ['cuda:1'] * 3
