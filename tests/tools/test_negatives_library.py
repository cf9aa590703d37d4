"""The experiment that compares sources of negatives."""

import runpy
import sys

import pytest
from helpers.run_tool import ROOT, config_with

from mmn_plugin.config import load_config


@pytest.fixture(scope='module')
def negatives():
    runpy.run_path(str(ROOT / 'tools' / 'reproduce.py'))
    return sys.modules['reproduction.negatives_library']


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
    found = [negatives.figures_of('shapes', row, 4, 1.0) for _ in range(2)]
    assert found == 2 * [dict(seed=4, train_cpu_seconds=60.0, quality=0.25)]
    assert len(asked) == 1


def test_the_table_has_the_towers_columns_where_there_is_a_tower(negatives):
    names = {name for _, name in negatives.COLUMNS.values()} | {'MedR@0.5'}
    alone = dict.fromkeys(names, 3.14)
    seed = {negatives.ALONE: alone, 'train_cpu_seconds': 120.0}
    rows = {'local': dict(rate=3.0, per_seed=[seed, seed])}
    with_tower = {'local': dict(rate=1.0, per_seed=[seed | {negatives.BOTH: alone}])}
    text = negatives.render_negatives_library(dict(shapes=rows, captions=with_tower))
    captions, shapes = text.split('\n\n')
    assert shapes.endswith('| 3.1 ± 0.0 | 3 | 2 | 3 |')
    assert captions.count('3.1') == len(negatives.COLUMNS)
    assert shapes.count('3.1') == len(negatives.COLUMNS) - 2


def test_what_may_limit_negatives_are_options_of_the_config(negatives):
    path = ROOT / negatives.MMN
    configs = [config_with(path, options) for options in negatives.LIMITS.values()]
    assert len({str(config.to_dict()) for config in configs}) == len(configs)
    names = {name for _, name in negatives.COLUMNS.values()}
    row = {negatives.ALONE: dict.fromkeys(names, 3.14), negatives.BOTH: dict.fromkeys(names, 2.0)}
    rows = {'the config': row | {'train_cpu_seconds': 60.0}}
    (line,) = negatives.render_negatives_limits(dict(rows=rows)).splitlines()[2:]
    assert line == '| the config | 3.1 | 3.1 | 3.1 | 3.1 | 3.1 | 2.0 | 2.0 | 1 |'
