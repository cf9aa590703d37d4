"""The experiment on sentences that are true of no moment, of one or of two."""

import json
import runpy
import sys
from types import SimpleNamespace

import pytest
import torch
from helpers.run_tool import ROOT, config_with, output_of
from mmaction.registry import MODELS

from mmn_plugin.evaluation import GroundingResult
from mmn_plugin.structures import MomentGrid


@pytest.fixture(scope='module')
def experiment():
    runpy.run_path(str(ROOT / 'tools' / 'reproduce.py'))
    return sys.modules['reproduction.shapes_windows']


def result_of(name, windows, presence):
    """A video whose sentences are answered by 0 to 4 s, with a presence."""
    num = len(windows)
    return GroundingResult(
        name,
        10.0,
        list(range(num)),
        [f'sentence {i}' for i in range(num)],
        [torch.tensor(own, dtype=torch.float32).reshape(-1, 2) for own in windows],
        torch.tensor([[[0.0, 4.0]] * 5] * num),
        torch.full((num, 5), 0.5),
        presence=torch.tensor(presence),
    )


@pytest.fixture
def results():
    return [
        result_of('a', [[[0, 4]], [], [[6, 8], [0, 4]]], [0.9, 0.2, 0.8]),
        result_of('b', [[], [[5, 9]]], [0.6, 0.4]),
    ]


@pytest.fixture
def corpus(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, 'ROOT', tmp_path)
    folder = tmp_path / experiment.CORPUS / 'annotations'
    folder.mkdir(parents=True)
    present = dict(once=dict(a=[0], b=[1]), twice=dict(a=[2]), unseen=dict(b=[1]), seen={})
    absent = dict(action=dict(a=[1]), color=dict(b=[0]), elsewhere={}, untrained={})
    (folder / 'test_subsets.json').write_text(json.dumps(present))
    (folder / 'test_absent.json').write_text(json.dumps(absent))


def test_rows_are_settings_of_the_config_and_differ(experiment):
    configs = [
        config_with(ROOT / experiment.CONFIG, options) for options in experiment.ROWS.values()
    ]
    assert len({str(config.to_dict()) for config in configs}) == len(configs)
    for config in configs:
        grid = MomentGrid(**config.grid)
        MODELS.build(config.model.head, default_args=dict(grid=grid))  # knows the settings


def test_sentences_with_one_window_are_kept_as_training_knew_them(experiment):
    video = dict(
        duration=9.0,
        timestamps=[[], [1.0, 2.0], [[1.0, 2.0], [4.0, 5.0]], [3.0, 4.0]],
        sentences=['none', 'one', 'two', 'other'],
    )
    assert experiment.alone(video) == dict(
        duration=9.0, timestamps=[[1.0, 2.0], [3.0, 4.0]], sentences=['one', 'other']
    )


def test_absent_sentences_of_each_kind_are_told_from_all_present_ones(experiment, results, corpus):
    present, absent = experiment.presences(results)
    assert present.tolist() == pytest.approx([0.9, 0.8, 0.4])
    assert absent.tolist() == pytest.approx([0.2, 0.6])
    config = SimpleNamespace(test_evaluator=dict(type='GroundingMetric', duration_buckets=()))
    found = experiment.scored(config, results, results)
    assert found['once/R1@0.5'] == 50
    assert found['twice/R1@0.5'] == 100
    assert found['absent/AUROC'] == pytest.approx(100 * 5 / 6)
    assert found['action/absent/AUROC'] == 100
    assert found['color/absent/AUROC'] == pytest.approx(100 * 2 / 3)
    assert found['threshold'] == pytest.approx(0.8)
    assert found['absent/rejected'] == 100
    assert found['absent/kept'] == pytest.approx(100 * 2 / 3)


def test_tables_have_a_row_for_each_training_and_each_presence(experiment, results, corpus):
    config = SimpleNamespace(test_evaluator=dict(type='GroundingMetric', duration_buckets=()))
    found = experiment.scored(config, results, results)
    found |= {f'{experiment.SCORE}{name}': value for name, value in found.items()}
    found |= {f'{kind}absent/{name}': 12.34 for kind in ('elsewhere/', 'untrained/')
              for name in ('AUROC', 'rejected')}  # fmt: skip
    found['train_cpu_seconds'] = 120
    text = experiment.render_shapes_windows(dict(per_seed={'row': [found, found]}))
    first, second, note = text.split('\n\n')
    assert first.splitlines()[2].startswith('| row | 50.0 ± 0.0 |')
    assert [line.split(' | ')[1] for line in second.splitlines()[2:]] == ['cosine', 'score']
    assert '12.3 ± 0.0' in second
    assert note.startswith('2 sentences of the test split have one window, 1 two, 2 none; 1 of')
    assert note.endswith('rows: 0.800. All trainings together took 4 CPU minutes.')


def test_the_config_is_trained_on_the_corpus_and_its_checkpoint_scored(
    experiment, tmp_path, monkeypatch
):
    folder = tmp_path / experiment.CORPUS
    output_of('data/make_shapes.py --videos 20 --workers 0 --absent-and-repeated {}', folder)
    output_of('mmn extract {} --out {} --workers 0', folder / 'videos', folder / 'features.h5')
    for name in ('configs', 'mmn_plugin', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setattr(experiment, 'ROOT', tmp_path)
    monkeypatch.setattr(experiment, 'best_of', lambda work: work / 'epoch_1.pth')

    def train(name, seed, options, config, processes):
        monkeypatch.chdir(tmp_path)
        line = 'train.py {} --work-dir {} --seed {} --cfg-options train_cfg.max_epochs=1'
        output_of(line, config, tmp_path / name, seed)
        return tmp_path / name, dict(seed=seed, train_cpu_seconds=1)

    monkeypatch.setattr(experiment, 'train', train)
    row = list(experiment.ROWS)[2]
    found = experiment.figures_of(row, 0)
    assert found['once/num_sentences'] + found['twice/num_sentences'] == found['num_sentences']
    assert found['absent/num_sentences'] == 4 * 2  # kinds, videos of test
    for kind in experiment.KINDS.values():
        assert 0 <= found[f'{kind}absent/AUROC'] <= 100
    assert row in experiment.render_shapes_windows(dict(per_seed={row: [found]}))
