import runpy
import sys

import numpy as np
import pytest
import torch
from helpers.run_tool import ROOT, config_with

from mmn_plugin.errors import InputError
from mmn_plugin.library import Segment, brute_force
from mmn_plugin.structures import MomentGrid


@pytest.fixture(scope='module')
def speed():
    runpy.run_path(str(ROOT / 'tools' / 'reproduce.py'))
    return sys.modules['reproduction.library_speed']


@pytest.fixture
def folder(speed, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, 'ROOT', tmp_path)
    monkeypatch.setattr(speed, 'AT_ONCE', 24)
    monkeypatch.setattr(speed, 'FIRST', 3000)
    return speed.random_moments(3000, 32)


def query_of(folder, place):
    sentences = np.load(folder / 'sentences.npz')
    return {space: torch.from_numpy(sentences[space][[place]]) for space in sentences}


def test_without_faiss_it_is_told_what_to_install(speed, monkeypatch):
    monkeypatch.setitem(sys.modules, 'faiss', None)
    with pytest.raises(InputError, match=r'pip install -r requirements/benchmark\.txt'):
        next(speed.library_speed(1))


def test_one_scan_of_each_space_gives_the_moments_that_are_joined(speed, folder, monkeypatch):
    segment, score = Segment(folder / 'trained.moments'), speed.MATCHING
    asked = []

    def counted(best):
        return lambda query, count: asked.append(count) or best(query, count)

    best = {s: counted(speed.numpy_best(segment.vectors(s, slice(None)))) for s in score.spaces}
    for first in (30, 3000):
        monkeypatch.setattr(speed, 'FIRST', first)
        query = query_of(folder, first // 1000)
        wanted = brute_force([segment], query, score, speed.TOP_N).row[0]
        found = speed.Joined(segment, score, best)(query)
        assert len(found) == speed.TOP_N
        # random directions need more than 30 of each space
        assert np.array_equal(found, wanted) == (first == 3000)
    assert asked == [30, 30, 3000, 3000]


def test_the_indexes_of_faiss_rank_as_a_full_scan(speed, folder):
    pytest.importorskip('faiss', reason='FAISS is not installed (requirements/benchmark.txt)')
    segment, score = Segment(folder / 'trained.moments'), speed.MATCHING
    variants, query = speed.joined_variants(segment, score), query_of(folder, 0)
    wanted = brute_force([segment], query, score, speed.TOP_N).row[0]
    for name in (speed.FLAT, speed.SIDE_BY_SIDE):
        assert np.array_equal(variants[name](query), wanted), name
    assert len(variants[speed.IVF](query)) == speed.TOP_N


def test_figures_of_all_variants_are_told_against_the_flat_scan(speed, folder, monkeypatch):
    class NoFaiss:
        omp_set_num_threads = staticmethod(lambda count: None)

    def joined(segment, score):
        best = {s: speed.numpy_best(segment.vectors(s, slice(None))) for s in score.spaces}
        return {speed.FLAT: speed.Joined(segment, score, best)}

    monkeypatch.setattr(speed, 'require_faiss', lambda: NoFaiss)
    monkeypatch.setattr(speed, 'joined_variants', joined)
    monkeypatch.setattr(speed, 'SENTENCES', 3)
    threads = torch.get_num_threads()
    try:
        found = speed.figures_of(folder, 'trained', speed.MATCHING, 1)
    finally:
        torch.set_num_threads(threads)
    assert {name: variant['shared'] for name, variant in found['variants'].items()} == {
        speed.OURS: 1.0,
        speed.FULL: 1.0,
        speed.FLAT: 1.0,
    }
    assert found['peak_mb'] >= 0
    assert found['searches_per_second'] > 0
    for variant in found['variants'].values():
        variant.update(ms=[4.0] * 3, cpu_ms=[8.0] * 3)
    found['variants'][speed.FLAT].update(ms=[12.0] * 3)
    failed = dict(kind='other', error='Traceback\nstopped after 9 s')
    text = speed.render_library_speed(dict(figures=[dict(kind='tiny', **found), failed], load=1.0))
    row = '| tiny, 3,000 x 32 + 32 | ours | 4.0 ms | 4.0 ms | 8.0 ms | 3.00x | 1.00x | 100.00 % |'
    assert row in text
    assert '| other | stopped after 9 s |' in text


def test_the_large_model_has_a_million_moments(speed):
    config = config_with(ROOT / speed.captions.MMN, speed.LARGE)
    assert config.model.neck.embed_channels == config.model.text_encoder.embed_channels == 256
    pooling = config.test_dataloader.dataset.pipeline[1]
    assert pooling.num_segments // config.model.backbone.stride == config.model.grid.num_clips
    assert 4885 * MomentGrid(**config.model.grid).num_moments > speed.MILLION
