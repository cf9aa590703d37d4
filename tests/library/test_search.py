from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mmn_plugin.errors import InputError
from mmn_plugin.library import ExactSearch, bounds, brute_force
from mmn_plugin.library import search as module
from mmn_plugin.library.packing import write_segment
from mmn_plugin.library.segment import Axes, Segment

SPACES = ('contrastive', 'iou', 'tower', 'fourth', 'fifth')


@dataclass
class Matching:
    """MMN's score, with a weight of all spaces but the first two."""

    spaces: tuple[str, ...]
    power: float = 4.0
    weight: float = 3.0

    def __call__(self, products, lengths, trust):
        scores = (0.5 * products[self.spaces[0]] + 0.5).clamp(min=0) ** self.power
        for space in self.spaces[1:2]:
            scores = scores * (10 * products[space]).sigmoid()
        for space in self.spaces[2:]:
            scores = scores * (self.weight * (products[space].clamp(max=1) - 1)).exp()
        return scores if trust is None else scores * trust


@dataclass
class ZeroShot:
    """A zero-shot score: the mean of all spaces, and the least of them, and the length."""

    spaces: tuple[str, ...]
    length_weight: float = 0.05
    scale: float = 10.0

    def __call__(self, products, lengths, trust):
        products = [products[space] for space in self.spaces]
        least = products[0]
        for product in products[1:]:
            least = torch.minimum(least, product)
        value = sum(products) / len(products) + 0.5 * least
        value = value + self.length_weight * lengths.clamp(min=1e-6).log()
        scores = (self.scale * value).sigmoid().clamp(min=1e-30)
        return scores if trust is None else scores * trust


def vectors(rng, rows, width, kind):
    """Vectors (rows, width) that are hard in one way."""
    found = rng.standard_normal((rows, width))
    if kind == 'steep':
        found *= 0.8 ** np.arange(width)
    if kind == 'last':
        found[:, : width * 3 // 4] *= 1e-3
    if rows and kind in ('steep', 'last', 'flat'):
        found += found.mean(0)
    if kind == 'duplicates':
        found = found[rng.integers(0, max(rows // 8, 1), rows)]
    if kind == 'grid':  # many equal products of different vectors
        found = rng.integers(-1, 2, (rows, width)).astype(float)
    if kind == 'norms':
        return found * 10.0 ** rng.integers(-9, 3, (rows, 1))
    if kind == 'zeros':
        found[rng.random(rows) < 0.7] = 0
    if kind == 'opposite':
        found = -np.abs(found)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-30)


def segment_of(path, rng, rows, widths, kind, trust=False, dtype='float16', turned=True):
    embeddings = {s: torch.from_numpy(vectors(rng, rows, w, kind)) for s, w in widths.items()}
    spans = torch.zeros(rows, 2)
    lengths = torch.from_numpy(rng.integers(1, 17, rows) / 16).float()
    trusted = torch.from_numpy(rng.random(rows)).float() if trust else None
    axes = None if turned else {s: Axes(np.eye(w, dtype=np.float32)) for s, w in widths.items()}
    write_segment(path, embeddings, spans, lengths, trusted, dtype, axes)
    return Segment(path)


def sentences(rng, count, widths, kind='steep'):
    return {s: torch.from_numpy(vectors(rng, count, w, kind)) for s, w in widths.items()}


def assert_equal(found, wanted):
    assert np.array_equal(found.segment, wanted.segment)
    assert np.array_equal(found.row, wanted.row)
    assert np.array_equal(found.score, wanted.score, equal_nan=True)


def by_sorting(segments, queries, score, top_n, allowed=None):
    """The first n without any function of the package but `Segment.vectors`."""
    pairs = []
    for place, segment in enumerate(segments):
        for row in range(segment.rows):
            if allowed is not None and not allowed[place][row]:
                continue
            products = {}
            for space in score.spaces:
                vector = segment.vectors(space, slice(row, row + 1)).astype(np.float64)[0]
                query = segment.rotation[space].astype(np.float64) @ queries[space][0].numpy()
                products[space] = torch.tensor(vector @ query)
            trust = None if segment.trust is None else torch.tensor(segment.trust[row]).double()
            found = score(products, torch.tensor(segment.lengths[row]).double(), trust)
            pairs.append((-found.item(), place, row))
    return sorted(pairs)[:top_n]


def test_the_full_scan_ranks_as_sorting_one_by_one(tmp_path):
    rng = np.random.default_rng(0)
    widths = dict(contrastive=20, iou=33)
    segments = [segment_of(tmp_path / n, rng, 40, widths, 'steep', trust=True) for n in 'ab']
    allowed = [rng.random(40) < 0.7 for _ in segments]
    for score in (Matching(('contrastive', 'iou')), ZeroShot(('iou',))):
        queries = sentences(rng, 1, widths)
        wanted = by_sorting(segments, queries, score, 7, allowed)
        found = brute_force(segments, queries, score, 7, allowed)
        assert found.segment[0].tolist() == [place for _, place, _ in wanted]
        assert found.row[0].tolist() == [row for _, _, row in wanted]
        assert found.score[0] == pytest.approx([-score for score, _, _ in wanted], rel=1e-12)


KINDS = ('steep', 'flat', 'last', 'duplicates', 'grid', 'norms', 'zeros', 'opposite')


@pytest.fixture
def small_steps(monkeypatch):
    """Chunks and samples so small that a few hundred moments take every path."""
    monkeypatch.setattr(bounds, 'CELLS', 1 << 11)
    for name, value in dict(_SAMPLE=64, _SEEDS=8, _BLOCK=4, _RUN=2, _SENTENCES=3).items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, 'PAIRS', 16)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('seed', range(4))
def test_the_answer_is_that_of_a_full_scan(tmp_path, small_steps, kind, seed):
    rng = np.random.default_rng(1000 * KINDS.index(kind) + seed)
    names = SPACES[: (1, 2, 3, 5)[seed]]
    widths = {space: int(rng.choice([7, 24, 60, 200])) for space in names}
    kinds = [kind, str(rng.choice(KINDS)), kind]
    segments = [
        segment_of(
            tmp_path / str(place),
            rng,
            int(rng.choice([3, 150, 700])),
            widths,
            kind_,
            trust=bool(rng.random() < 0.5),
            dtype=str(rng.choice(['float16', 'float32'])),
            turned=bool(rng.random() < 0.7),
        )
        for place, kind_ in enumerate(kinds)
    ]
    queries = sentences(rng, 5, widths, kind)
    for space in names:  # of any norm
        queries[space] *= 10.0 ** rng.integers(-1, 2)
    few, most = ([rng.random(s.rows) < share for s in segments] for share in (0.2, 0.8))
    for score in (
        Matching(names, float(rng.choice([0.5, 4, 8])), float(rng.choice([0, 3, 8]))),
        ZeroShot(names, float(rng.choice([-0.1, 0, 0.05])), float(rng.choice([1, 10, 100]))),
    ):
        search = ExactSearch(segments, score, full_scan=bool(rng.random() < 0.2))
        for top_n, allowed in ((1, None), (5, most), (20, few), (2000, None)):
            wanted = brute_force(segments, queries, score, top_n, allowed)
            assert_equal(search(queries, top_n, allowed), wanted)


def test_moments_of_equal_score_come_in_the_order_of_segments_and_rows(tmp_path, small_steps):
    rng = np.random.default_rng(3)
    widths = dict(contrastive=24, iou=24)
    one = segment_of(tmp_path / 'a', rng, 300, widths, 'zeros')
    two = segment_of(tmp_path / 'b', rng, 900, widths, 'zeros')  # larger, so it is searched first
    nothing = {space: torch.zeros(2, 24) for space in widths}
    found = ExactSearch([one, two], Matching(tuple(widths)))(nothing, 310)
    assert found.segment[1].tolist() == [0] * 300 + [1] * 10
    assert found.row[1].tolist() == [*range(300), *range(10)]


def test_less_moments_than_asked_for_leave_the_end_empty(tmp_path):
    rng = np.random.default_rng(4)
    widths = dict(contrastive=24)
    segments = [
        segment_of(tmp_path / n, rng, rows, widths, 'flat') for n, rows in dict(a=4, b=3).items()
    ]
    search = ExactSearch(segments, ZeroShot(('contrastive',)))
    found = search(sentences(rng, 2, widths), 10, [np.ones(4, bool), np.zeros(3, bool)])
    assert (found.row[:, 4:] == -1).all()
    assert (found.segment[:, 4:] == -1).all()
    assert np.isnan(found.score[:, 4:]).all()
    assert sorted(found.row[0, :4]) == [0, 1, 2, 3]
    nobody = search(sentences(rng, 0, widths), 10)
    assert nobody.row.shape == (0, 10)
    assert (
        ExactSearch([], ZeroShot(('contrastive',)))(sentences(rng, 2, widths), 3).row == -1
    ).all()


def near_ties(rng, rows, width):
    """Vectors whose products with the first one differ by about as much as float32 rounds.

    Their coordinates are large and cancel out.
    """
    query = np.where(np.arange(width) % 2, 1.0, -1.0)
    base = (rng.random((rows, width // 2)) * 512 + 512).repeat(2, axis=1)
    base[:, 1::2] = base[:, 1::2][:, rng.permutation(width // 2)]  # each cancels one far from it
    base[:, -1] += rng.integers(0, 4, rows) * 2.0**-13
    return base, query


def test_without_the_margin_rounding_loses_a_moment(tmp_path, small_steps, monkeypatch):
    width, score = 200, Matching(('contrastive',), power=1.0)
    axes, searched = dict(contrastive=Axes(np.eye(width, dtype=np.float32))), []
    monkeypatch.setattr(bounds, '_ROUNDS', 12)  # as close as float64 is
    for seed in range(5):  # which of them lose one depends on the processor
        rng = np.random.default_rng(seed)
        found, query = near_ties(rng, 600, width)
        embeddings = dict(contrastive=torch.from_numpy(found))
        path, spans, lengths = tmp_path / str(seed), torch.zeros(600, 2), torch.ones(600)
        write_segment(path, embeddings, spans, lengths, None, 'float32', axes)
        segments = [Segment(path)]
        queries = dict(contrastive=torch.from_numpy(query * rng.random(1))[None])
        wanted = brute_force(segments, queries, score, 5)
        assert_equal(ExactSearch(segments, score)(queries, 5), wanted)
        searched.append((segments, queries, wanted.row))
    monkeypatch.setattr(bounds, '_margin', lambda terms, size: 0 * size)
    assert not all(
        np.array_equal(ExactSearch(segments, score)(queries, 5).row, rows)
        for segments, queries, rows in searched
    )


def test_products_of_less_than_float32_have_their_own_margin(tmp_path, small_steps):
    rng = np.random.default_rng(6)
    widths = dict(contrastive=120, iou=120)
    segments = [segment_of(tmp_path / 'a', rng, 700, widths, 'steep')]
    queries, score = sentences(rng, 6, widths), Matching(tuple(widths))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('medium')  # bfloat16, where the processor has it
    try:
        found = ExactSearch(segments, score)(queries, 5)
    finally:
        torch.set_float32_matmul_precision(before)
    assert_equal(found, brute_force(segments, queries, score, 5))


def test_numbers_beyond_float32_are_searched_as_well(tmp_path, small_steps):
    rng = np.random.default_rng(7)
    widths = dict(contrastive=40)
    embeddings = dict(contrastive=torch.from_numpy(vectors(rng, 300, 40, 'steep') * 1e30))
    spans, lengths = torch.zeros(300, 2), torch.ones(300)
    write_segment(tmp_path / 'a', embeddings, spans, lengths, None, 'float32')
    segments, score = [Segment(tmp_path / 'a')], ZeroShot(('contrastive',), scale=1e-50)
    queries = dict(contrastive=sentences(rng, 3, widths)['contrastive'] * 1e20)
    wanted = brute_force(segments, queries, score, 5)
    assert len(np.unique(wanted.score)) > 10
    assert_equal(ExactSearch(segments, score)(queries, 5), wanted)


def test_a_steep_spectrum_is_searched_by_few_coordinates_and_a_flat_one_in_order(tmp_path):
    rng, widths = np.random.default_rng(8), dict(contrastive=128, iou=128)
    score, rows = Matching(tuple(widths)), 20_000
    read = {}
    for kind in ('steep', 'flat'):
        search = ExactSearch([segment_of(tmp_path / kind, rng, rows, widths, kind)], score)
        search(sentences(rng, 1, widths, kind), 5)
        assert search.last['moments'] == rows
        read[kind] = search.last['coordinates'] / (2 * 128 * rows)
        assert search.last['full_scans'] == (kind == 'flat')
    assert read['steep'] < 0.2
    assert 1 < read['flat'] < 1.1


@pytest.mark.parametrize(
    ('queries', 'top_n', 'message'),
    [
        (dict(contrastive=torch.ones(1, 24)), 0, 'top_n=0'),
        (dict(iou=torch.ones(1, 24)), 5, r"no vectors of sentences in \['contrastive'\]"),
        (dict(contrastive=torch.ones(1, 23)), 5, r'\(1, 23\); segments have vectors of \[24\]'),
        (dict(contrastive=torch.ones(24)), 5, r'\(24,\)'),
        (dict(contrastive=torch.full((1, 24), torch.nan)), 5, 'hold NaN or Inf'),
    ],
)
def test_what_cannot_be_searched_for_is_told(tmp_path, queries, top_n, message):
    segment = segment_of(tmp_path / 'a', np.random.default_rng(9), 5, dict(contrastive=24), 'flat')
    search = ExactSearch([segment], ZeroShot(('contrastive',)))
    with pytest.raises(InputError, match=message):
        search(queries, top_n)
    with pytest.raises(InputError, match=r"needs \['iou'\] as well"):
        ExactSearch([segment], ZeroShot(('contrastive', 'iou')))
