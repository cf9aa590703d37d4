"""The exact ranking of a library, beside one that is written down sentence by sentence."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from mmn_plugin.errors import InputError
from mmn_plugin.evaluation import MomentPool, library_ranking, rank_library, rank_own_videos
from mmn_plugin.models.ranking import nms
from mmn_plugin.structures import MomentGrid, VideoEmbedding

GRID = MomentGrid(6, [5])


@dataclass
class Score:
    """A score that rises in both products and looks at lengths and trust."""

    spaces = ('a', 'b')

    def __call__(self, products, lengths, trust=None):
        value = products['a'].double().exp() + 0.5 * products['b'].double() + 0.1 * lengths.double()
        return value if trust is None else value * trust


def videos_of(count, trust=False):
    generator, found = torch.Generator().manual_seed(0), []
    for number in range(count):
        spans = GRID.spans(20.0 + number)
        rows = {
            space: F.normalize(torch.randn(len(spans), 4, generator=generator), dim=-1)
            for space in Score.spaces
        }
        own = torch.rand(len(spans), generator=generator) if trust else None
        found.append(VideoEmbedding(rows, spans, f'v{number}', 20.0 + number, own))
    return found


QUERIES = {
    space: F.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), dim=-1)
    for space in Score.spaces
}


def by_video(videos, threshold, top_n):
    """(score, video, span) of each sentence: NMS of whole videos, then everything sorted."""
    found = []
    for sentence in range(5):
        hits, best = [], []
        for place, video in enumerate(videos):
            products = {s: QUERIES[s][sentence, None] @ video.embeddings[s].T for s in Score.spaces}
            lengths = (video.spans[:, 1] - video.spans[:, 0]) / video.duration
            scores = Score()(products, lengths, video.trust)
            picks = nms(video.spans, scores, threshold, len(video.spans))[0]
            picks = picks[picks >= 0].tolist()
            hits += [(float(scores[0, p]), place, tuple(video.spans[p].tolist())) for p in picks]
            best.append((float(scores.max()), place))
        found.append((sorted(hits, reverse=True)[:top_n], [p for _, p in sorted(best)[::-1]]))
    return found


@pytest.mark.parametrize('trust', [False, True])
@pytest.mark.parametrize(('threshold', 'top_n'), [(0.5, 10), (0.2, 40), (1.0, 3)])
def test_hits_are_those_of_every_video_ranked_alone(threshold, top_n, trust, monkeypatch):
    monkeypatch.setattr(library_ranking, 'MOMENTS', 50)  # blocks end inside of videos
    monkeypatch.setattr(library_ranking, 'SENTENCES', 2)
    monkeypatch.setattr(library_ranking, 'CANDIDATES', 1)  # NMS asks for more
    videos = videos_of(9, trust)
    pool = MomentPool.of(videos, Score.spaces)
    found = rank_library(pool, QUERIES, Score(), threshold, top_n, top_videos=4)
    assert found.pool == 9 * GRID.num_moments
    for sentence, (hits, best) in enumerate(by_video(videos, threshold, top_n)):
        there = found.videos[sentence] >= 0
        assert int(there.sum()) == len(hits)
        scores, places, spans = zip(*hits, strict=True)
        assert found.videos[sentence, there].tolist() == list(places)
        torch.testing.assert_close(found.moments[sentence, there], torch.tensor(spans))
        torch.testing.assert_close(found.scores[sentence, there], torch.tensor(scores).double())
        assert found.moments[sentence, ~there].isnan().all()
        assert found.best_videos[sentence].tolist() == best[:4]


def test_a_video_alone_is_ranked_as_a_library_of_it():
    videos = videos_of(3)
    own = [0, 2, 1, 1, 0]
    pool = MomentPool.of(videos, Score.spaces)
    moments, scores = rank_own_videos(pool, QUERIES, Score(), 0.5, own, top_n=4)
    for sentence, place in enumerate(own):
        queries = {space: rows[sentence, None] for space, rows in QUERIES.items()}
        alone = MomentPool.of([videos[place]], Score.spaces)
        found = rank_library(alone, queries, Score(), 0.5, top_n=4)
        assert torch.equal(found.moments[0], moments[sentence])
        torch.testing.assert_close(found.scores[0], scores[sentence])


def test_a_long_videos_lengths_are_shares_of_a_window():
    (video,) = videos_of(1)
    video.length_in_windows = 4.0
    pool = MomentPool.of([video], Score.spaces)
    torch.testing.assert_close(pool.lengths.max(), torch.tensor(4.0))


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(InputError, match='no video'):
        MomentPool.of([], Score.spaces)
    videos = videos_of(2)
    videos[1].embeddings['a'][3] = torch.nan
    with pytest.raises(InputError, match='NaN among the scores'):
        rank_library(MomentPool.of(videos, Score.spaces), QUERIES, Score(), 0.5)
