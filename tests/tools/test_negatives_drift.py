"""The probe of a memory bank's drift, and what is made of its figures."""

import copy
import json
import runpy
import sys

import numpy as np
import pytest
import torch
from helpers.random_candidates import random_candidates
from helpers.run_tool import ROOT
from helpers.tiny_corpus import write_config, write_corpus
from mmengine.runner import Runner

from mmn_plugin.config import load_config


@pytest.fixture(scope='module')
def modules():
    runpy.run_path(str(ROOT / 'tools' / 'reproduce.py'))
    return lambda name: sys.modules[f'reproduction.{name}']


@pytest.fixture(scope='module')
def probes_of(modules, tmp_path_factory):
    """Probes of a training of 12 steps of 2 videos on 8, its bank of 6."""
    folder = tmp_path_factory.mktemp('drift')
    path = write_config(folder / 'tiny.py', write_corpus(folder / 'corpus'), epochs=3, dropout=0.0)
    modules('drift_probe')

    def probes(lr: float, weight: float = 1.0) -> list[dict]:
        work = folder / f'lr{lr}_{weight}'
        options = {
            'work_dir': str(work),
            'default_hooks.drift': dict(type='DriftProbe', every=3),
            'model.head.negatives': dict(queue_size=6, weight=weight),
            'optim_wrapper.optimizer.lr': lr,
            'param_scheduler': [],
            'train_cfg.val_begin': 9,
        }
        Runner.from_cfg(load_config(path, options)).train()
        return json.loads((work / 'drift.json').read_text())['probes']

    return probes


def test_with_frozen_weights_stored_and_fresh_embeddings_agree(probes_of):
    found = probes_of(0.0)
    assert [probe['step'] for probe in found] == [3, 6, 9]
    for probe in found:
        ages, losses = probe['ages'], probe['losses']
        assert ages['age'] == [1, 2]
        assert ages['moments cosine'] == ages['sentences cosine'] == pytest.approx([1, 1])
        assert losses['bank'] == pytest.approx(losses['fresh'], rel=1e-5)
        assert losses['shift undone'] == pytest.approx(losses['fresh'], rel=1e-5)


def test_in_training_they_part_with_age(probes_of):
    for probe in probes_of(0.05):
        for kind in ('moments', 'sentences'):
            near, far = probe['ages'][f'{kind} cosine']
            assert 1 - 1e-4 > near > far
        assert abs(probe['losses']['bank'] - probe['losses']['fresh']) > 1e-3


def test_slots_of_a_ring_are_those_of_the_bank(modules):
    in_slots = modules('drift_probe').in_slots
    assert in_slots(np.arange(3), 4).tolist() == [0, 1, 2]
    assert in_slots(np.arange(10), 4).tolist() == [8, 9, 6, 7]


def test_a_common_shift_is_found_and_undone(modules):
    probe = modules('drift_probe')
    stored = random_candidates([2, 1, 3, 1], 'abcd')
    fresh, ages = copy.copy(stored), np.array([1, 1, 2, 2])
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    fresh.sentences = stored.sentences @ turn
    shift = torch.tensor([0.5, 0, 0, 0, 0], dtype=torch.float64)
    fresh.moments = stored.moments + shift
    found = probe.by_age(stored, fresh, ages)
    assert found['age'] == [1, 2]
    assert found['moments common'] == pytest.approx([1, 1])
    assert all(share < 0.9 for share in found['sentences common'])
    moved = probe.without_shift(stored, fresh, ages)
    torch.testing.assert_close(moved.moments, torch.nn.functional.normalize(fresh.moments, dim=-1))
    assert stored.moments is not moved.moments


def test_the_table_shows_the_first_of_a_full_bank_and_the_last(modules, tmp_path):
    drift = modules('negatives_drift')

    def probe(step, ages):
        figures = {
            f'{kind} {name}': [0.5] * len(ages)
            for kind in drift.KINDS
            for name in ('cosine', 'common')
        }
        return dict(
            step=step,
            ages=dict(figures, age=ages),
            losses=dict.fromkeys(drift.LOSSES, float(step)),
            similarity=dict(bank=0.1, fresh=0.2),
        )

    probes = [probe(5, [1, 2]), *(probe(10 * n, list(drift.AGES)) for n in range(2, 9))]
    run = dict(probes=probes)
    result = dict(runs=dict.fromkeys([*drift.TRAININGS, drift.FROZEN], run))
    lines = drift.render_negatives_drift(result).splitlines()
    assert [line.split(' | ')[1] for line in lines[2:9]] == [*('20', '40', '80') * 2, '20']
    drift.draw(result, tmp_path / 'picture.png')
    assert (tmp_path / 'picture.png').stat().st_size > 1000
