"""The experiment that compares sources of negatives."""

import json
import runpy
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
import torch
from helpers.random_candidates import random_candidates
from helpers.run_tool import ROOT, config_with

from mmn_plugin.config import load_config
from mmn_plugin.models import Negatives
from mmn_plugin.models.losses import MutualMatchingLoss


@pytest.fixture(scope='module')
def negatives():
    runpy.run_path(str(ROOT / 'tools' / 'reproduce.py'))
    return sys.modules['reproduction.negatives_library']


@pytest.fixture
def limits(negatives):
    return sys.modules['reproduction.negatives_limits']


@pytest.mark.parametrize('corpus', ['captions', 'shapes'])
def test_all_rows_step_over_as_many_videos_but_those_that_name_more(negatives, corpus):
    path = ROOT / negatives.CORPORA[corpus]
    plain = load_config(path)
    for row, (videos, _, _) in negatives.ROWS.items():
        options = negatives.options_of(corpus, row, 3.0)
        config = config_with(path, options)
        source = config.model.head.get('negatives', {})
        per_batch = source.get('videos_per_step', config.train_dataloader.batch_size)
        assert per_batch == videos
        step = videos * config.optim_wrapper.get('accumulative_counts', 1)
        assert step == max(videos, negatives.STEP)
        rates = [c.optim_wrapper.optimizer.lr for c in (config, plain)]
        assert rates[0] == pytest.approx(3 * rates[1])
        if 'exclude_similar' in source:  # something that is never trained says what sentences mean
            assert config.model.tower.type == 'TextTower'
        if corpus == 'captions':  # as many videos warm up
            ends = [c.param_scheduler[0].end for c in (config, plain)]
            assert ends[0] * videos == pytest.approx(ends[1] * negatives.STEP, abs=videos)


def test_a_training_is_measured_once(negatives, tmp_path, monkeypatch):
    asked = []

    def train(name, seed, options, config, processes):
        (tmp_path / name).mkdir(exist_ok=True)
        return tmp_path / name, dict(seed=seed, train_cpu_seconds=60.0)

    monkeypatch.setattr(negatives, 'train', train)
    monkeypatch.setattr(negatives, 'best_of', lambda work: work)
    monkeypatch.setattr(
        negatives, 'evaluated', lambda *job: asked.append(job) or dict(quality=0.25)
    )
    row = next(iter(negatives.ROWS))
    first, second = (negatives.figures_of('shapes', row, 1.0, 4) for _ in range(2))
    assert first == second
    assert negatives.place_of(first) == ('shapes', row, 1.0, 4)
    assert first['quality'] == 0.25
    assert negatives.is_current(first)
    assert not negatives.is_current(first | dict(options=first['options'][1:]))
    assert len(asked) == 1


def test_a_model_is_built_as_it_was_trained(negatives, tmp_path, monkeypatch):
    path, options = negatives.CORPORA['captions'], ['model.neck.kernel_size=3']
    config = config_with(ROOT / path, options)
    config.dump(tmp_path / Path(path).name)
    (tmp_path / 'best_of_all.pth').touch()
    monkeypatch.setattr(negatives.tool, 'read_model', lambda *how: how)
    found, (built, checkpoint) = negatives.trained_model(tmp_path, path)
    assert found.model.neck.kernel_size == built.model.neck.kernel_size == 3
    assert checkpoint == str(tmp_path / 'best_of_all.pth')


def run_of(negatives, place, **figures):
    options = list(negatives.options_of(*place[:3]))
    about = dict(zip(('corpus', 'row', 'rate', 'seed'), place, strict=True), options=options)
    return about | figures


class AtOnce(Executor):
    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


@pytest.fixture
def at_once(negatives, monkeypatch):
    """Trainings that are stood in for are run one by one, here."""
    monkeypatch.setattr(negatives, 'make_corpus', lambda: None)
    monkeypatch.setattr(negatives, 'state_of_code', lambda: ['one', 'two'])
    monkeypatch.setattr(negatives, 'ProcessPoolExecutor', lambda *_: AtOnce())
    monkeypatch.setenv('OMP_NUM_THREADS', '1')


def test_the_experiment_goes_on_from_its_result_and_tries_rates_with_the_first_seed(
    negatives, at_once, tmp_path, monkeypatch
):
    made = []

    def figures_of(*place):
        made.append(place)
        return run_of(negatives, place, quality=place[2])

    monkeypatch.setattr(negatives, 'CORPORA', dict(shapes=negatives.CORPORA['shapes']))
    monkeypatch.setattr(negatives, 'ROWS', dict([*negatives.ROWS.items()][:2]))
    monkeypatch.setattr(negatives, 'RESULT', tmp_path / 'result.json')
    monkeypatch.setattr(negatives, 'figures_of', figures_of)
    results = [json.loads(json.dumps(part)) for part in negatives.negatives_library([5, 6])]
    first, second = negatives.ROWS
    high = max(negatives.RATES)
    tried = [('shapes', row, rate, 5) for row in (first, second) for rate in negatives.RATES]
    assert sorted(made) == sorted([*tried, ('shapes', first, high, 6), ('shapes', second, high, 6)])
    assert [len(part['runs']) for part in results] == [1, 2, 3, 4, 5, 6, 6]

    def again(result):
        made.clear()
        negatives.RESULT.write_text(json.dumps(result))
        (*_, last) = negatives.negatives_library([5, 6])
        return sorted(map(negatives.place_of, last['runs']))

    whole = again(results[-1])
    assert not made
    assert again(results[2]) == whole
    assert len(made) == 3
    assert again(results[-1] | dict(code=['one', 'other'])) == whole
    assert len(made) == 6
    gone = dict(results[-1]['runs'][0], row=negatives.REMOVED[0])
    old = dict(code=['one', 'other'], commit='that had it', runs=[gone])
    negatives.RESULT.write_text(json.dumps(results[-1] | old))
    (*_, last) = negatives.negatives_library([5, 6])
    assert last['runs'][0] == gone | dict(commit='that had it')
    assert sorted(map(negatives.place_of, last['runs'][1:])) == whole


def test_the_table_has_rows_whose_rates_were_all_tried_and_columns_of_the_tower(negatives):
    names = {name for _, name in negatives.COLUMNS.values()} | {'MedR@0.5'}
    alone = dict.fromkeys(names, 3.14)
    runs = []
    for corpus, spaces in dict(
        captions=(negatives.ALONE, negatives.BOTH), shapes=[negatives.ALONE]
    ).items():
        figures = dict.fromkeys(spaces, alone) | dict(train_cpu_seconds=120.0)
        row, other = [*negatives.ROWS][:2]
        places = [*product([corpus], [row], negatives.RATES, [0]), (corpus, row, 3.0, 1)]
        places.append((corpus, other, 1.0, 0))
        runs += [run_of(negatives, place, quality=place[2], **figures) for place in places]
    text = negatives.render_negatives_library(dict(seeds=[0, 1], runs=runs))
    captions, shapes = text.split('\n\n')
    assert len(shapes.splitlines()) == 3
    assert shapes.endswith('| 3.1 ± 0.0 | 3 | 2 | 3 | 2 |')
    assert captions.count('3.1') == len(negatives.COLUMNS)
    assert shapes.count('3.1') == len(negatives.COLUMNS) - 2


def test_what_may_limit_negatives_are_options_of_the_config(negatives, limits):
    path = ROOT / limits.MMN
    configs = [
        config_with(ROOT / limits.LIMIT_CONFIGS.get(row, path), options)
        for row, options in limits.LIMITS.items()
    ]
    assert len({str(config.to_dict()) for config in configs}) == len(configs)
    names = {name for _, name in negatives.COLUMNS.values()}
    row = {negatives.ALONE: dict.fromkeys(names, 3.14), negatives.BOTH: dict.fromkeys(names, 2.0)}
    runs = [dict(row=label, train_cpu_seconds=60.0, **row) for label in ('weight 1', 'the config')]
    lines = limits.render_negatives_limits(dict(runs=runs)).splitlines()[2:]
    figures = '3.1 | 3.1 | 3.1 | 3.1 | 3.1 | 2.0 | 2.0 | 1 |'
    assert lines == [f'| the config | {figures}', f'| weight 1 | {figures}']


def test_a_training_that_fails_ends_those_that_have_not_begun(negatives, monkeypatch):
    called = []

    def fail(job):
        called.append(job)
        time.sleep(0.2)
        raise SystemExit('train.py ended with exit code 1')

    monkeypatch.setattr(negatives, 'ProcessPoolExecutor', lambda *_: ThreadPoolExecutor(1))
    with pytest.raises(SystemExit):
        list(negatives.measured(fail, [(job,) for job in range(20)], [], negatives.place_of))
    assert len(called) < 20


def test_the_config_for_libraries_goes_on_from_its_result_and_shows_what_was_chosen(
    negatives, at_once, tmp_path, monkeypatch
):
    made = []
    names = {name for _, name in negatives.COLUMNS.values()} | {'MedR@0.5'}
    figures = dict.fromkeys(names, 3.14) | dict(score_power=16.0, tower_weight=8.0)

    def of_default(seed):
        made.append(seed)
        about = dict(seed=seed, options=[negatives.PLAIN], train_cpu_seconds=60.0)
        return about | {negatives.ALONE: figures, negatives.BOTH: figures}

    monkeypatch.setattr(negatives, 'DEFAULT_RESULT', tmp_path / 'result.json')
    monkeypatch.setattr(negatives, 'of_default', of_default)
    (*_, last) = negatives.captions_library([4])
    negatives.DEFAULT_RESULT.write_text(json.dumps(last))
    (*_, last) = negatives.captions_library([4, 5])
    assert made == [4, 5]
    other = [run | dict(options=[]) for run in last['runs']]
    negatives.DEFAULT_RESULT.write_text(json.dumps(last | dict(runs=other)))
    (*_, last) = negatives.captions_library([4, 5])
    assert made == [4, 5, 4, 5]
    lines = negatives.render_captions_library(last).splitlines()
    assert lines[2].startswith('| mmn_captions_library.py | 3.1 ± 0.0 |')
    assert lines[2].endswith('| 3 | 1 | 2 |')
    assert lines[-1].endswith('seed: ' + '; '.join(['score_power=16, tower_weight=8'] * 2) + '.')


def test_limits_go_on_from_their_result(limits, at_once, tmp_path, monkeypatch):
    made = []

    def limited(row):
        made.append(row)
        return dict(row=row, options=limits.limit_options(row))

    monkeypatch.setattr(limits, 'LIMITS', dict([*limits.LIMITS.items()][:3]))
    monkeypatch.setattr(limits, 'RESULT', tmp_path / 'result.json')
    monkeypatch.setattr(limits, 'limited', limited)
    first, second, third = limits.LIMITS
    parts = [json.loads(json.dumps(part)) for part in limits.negatives_limits()]
    assert [len(part['runs']) for part in parts] == [1, 2, 3, 3]
    kept = next(run for run in parts[-1]['runs'] if run['row'] == second)
    other = dict(row=first, options=['of another schedule'])
    limits.RESULT.write_text(json.dumps(parts[-1] | dict(runs=[other, kept])))
    made.clear()
    (*_, last) = limits.negatives_limits()
    assert made == [first, third]
    assert sorted(run['row'] for run in last['runs']) == sorted([first, second, third])


def test_learnt_temperatures_give_the_loss_of_fixed_ones_and_its_derivative(negatives):
    from reproduction.learnt_temperature import LearntTemperatureLoss

    torch.manual_seed(0)
    own = random_candidates([2, 1, 3], range(3))
    settings = dict(num_positive=2, negative_iou=0.5, sentence_removal_iou=0.5, margin=0.3)
    batch = own, own.iou.topk(2).indices, Negatives.of(own, own, (0, 0))

    def fixed(video, sentence):
        temperatures = dict(temperature_video=video, temperature_sentence=sentence)
        return torch.stack(MutualMatchingLoss(**settings, **temperatures)(*batch))

    learnt = LearntTemperatureLoss(**settings, temperature_video=0.1, temperature_sentence=0.2)
    learnt.double()
    found = torch.stack(learnt(*batch))
    torch.testing.assert_close(found, fixed(0.1, 0.2), rtol=1e-6, atol=0)
    found.sum().backward()
    step = 1e-3
    slopes = [
        (fixed(0.1 * video, 0.2 * sentence) - fixed(0.1 / video, 0.2 / sentence)).sum().item()
        / (2 * step)
        for video, sentence in torch.exp(step * torch.eye(2)).tolist()
    ]
    assert learnt.log_temperature.grad.tolist() == pytest.approx(slopes, rel=1e-4)
