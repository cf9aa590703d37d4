"""Figures over a library, of cases whose right values follow from the definitions."""

import json

import pytest
import torch

from mmn_plugin.errors import InputError
from mmn_plugin.evaluation import (
    AskedSentence,
    LibraryRanking,
    PredictionsError,
    asked_sentences,
    library_figures,
    read_tvr,
    whole_truth_figures,
    write_tvr,
)
from mmn_plugin.structures.annotations import VideoAnnotation

NAMES = ['a', 'b', 'c']


def annotated(video_id, *sentences):
    """A video of 100 s with (text, start, end)."""
    texts, moments = [text for text, *_ in sentences], [tuple(span) for _, *span in sentences]
    return VideoAnnotation(video_id, 100.0, moments, texts, list(range(len(texts))))


LIBRARY = [
    annotated('a', ('A dog runs.', 0, 10), ('a cat sleeps', 50, 60)),
    annotated('b', ('a dog  runs', 20, 40)),
    annotated('c', ('a man sings', 0, 100)),
]


def ranking_of(*hits, width=4, own=None):
    """Hits (place of the video, start, end) of each sentence, scored 1, 1/2, 1/3 ..."""
    videos = torch.full((len(hits), width), -1)
    moments = torch.full((len(hits), width, 2), torch.nan)
    scores = moments[..., 0].clone()
    best = torch.full((len(hits), len(NAMES)), -1)
    for row, listed in enumerate(hits):
        for rank, (video, *span) in enumerate(listed):
            videos[row, rank], moments[row, rank] = video, torch.tensor(span)
            scores[row, rank] = 1 / (rank + 1)
        order = list(dict.fromkeys(video for video, *_ in listed))
        best[row, : len(order)] = torch.tensor(order)
    scores = scores.double()
    video_scores = torch.where(best >= 0, 0.5, torch.nan).double()
    return LibraryRanking(NAMES, 1000, videos, moments, scores, best, video_scores, *(own or ()))


def figures_of(*hits, asked=None, **settings):
    asked = asked_sentences(LIBRARY, LIBRARY) if asked is None else asked
    settings = dict(top_n=(1, 2, 4), iou_thrs=(0.5, 0.7), top_videos=(1, 2)) | settings
    return library_figures(ranking_of(*hits), asked, **settings)


# one list of hits for each of the four sentences
HITS = (
    [(1, 20, 40), (0, 0, 6)],  # the same sentence in b exactly; then its own, with IoU 0.6
    [(1, 50, 60), (2, 50, 60), (0, 52, 60)],  # the right span in two wrong videos, then IoU 0.8
    [(1, 20, 30), (1, 0, 100)],  # IoU 0.5 and 0.2: right at 0.5 alone
    [(0, 0, 100)],  # never
)


def test_a_right_hit_is_of_the_right_video_and_overlaps_enough():
    found = figures_of(*HITS)
    assert [found[f'R{n}@0.5'] for n in (1, 2, 4)] == [25, 50, 75]  # ranks 2, 3, 1 and none
    assert [found[f'R{n}@0.7'] for n in (1, 2, 4)] == [0, 0, 25]  # rank 3 of one
    assert found['MedR@0.5'] == 2.5
    assert found['MedR@0.7'] == 1000  # a miss counts the size of the pool


def test_videos_are_found_by_their_best_moments():
    found = figures_of(*HITS)
    # a is second, a is third, b is first, c is missing
    assert (found['VR1'], found['VR2'], found['SumR']) == (25, 50, 75)


def test_every_moment_of_the_same_normalized_sentence_counts_as_well():
    found = figures_of(*HITS)
    # the first sentence is right at once now, and so is its video
    assert [found[f'any/R{n}@0.5'] for n in (1, 2, 4)] == [50, 50, 75]
    assert found['any/MedR@0.5'] == 2  # ranks 1, 3, 1 and none
    assert (found['any/VR1'], found['any/VR2']) == (50, 50)


def test_sentences_of_other_videos_count_as_the_annotations_of_the_library_say():
    asked = asked_sentences(LIBRARY[:1], LIBRARY)
    assert [one.sentence for one in asked] == ['A dog runs.', 'a cat sleeps']
    assert asked[0].videos.tolist() == [0, 1]
    assert asked[0].moments.tolist() == [[0, 10], [20, 40]]
    assert asked[1].videos.tolist() == [0]
    assert asked_sentences(LIBRARY[1:2], LIBRARY)[0].videos.tolist() == [1, 0]  # its own first
    with pytest.raises(InputError, match="'a' is asked about"):
        asked_sentences(LIBRARY[:1], LIBRARY[1:])


def test_each_window_of_a_sentence_is_right_and_one_that_does_not_occur_is_not_asked():
    windows = [[(0, 10), (50, 60)], [], [(20, 40)]]
    first = VideoAnnotation('a', 100.0, windows, ['A dog runs.', 'a man sings', 'rain'], [0, 1, 2])
    asked = asked_sentences([first], [first, *LIBRARY[1:]])
    assert [(one.sentence, one.num_windows) for one in asked] == [('A dog runs.', 2), ('rain', 1)]
    assert asked[0].videos.tolist() == [0, 0, 1]
    assert asked[0].alone().moments.tolist() == [[0, 10], [50, 60]]
    own = torch.tensor([[[50.0, 56.0], [0, 10]], [[0, 9], [20, 30]]])
    found = library_figures(
        # the second window, then the first; the same span in another video, then the own one
        ranking_of([(1, 0, 9), (0, 50, 59)], [(1, 20, 40)], own=(own, torch.ones(2, 2).double())),
        asked,
        top_n=(1, 2),
        top_videos=(1,),
    )
    assert (found['R1@0.5'], found['R2@0.5'], found['R2@0.7']) == (0, 50, 50)
    assert [found[f'own/R{n}@{iou}'] for n in (1, 2) for iou in (0.5, 0.7)] == [50, 0, 100, 50]


def test_the_sentences_own_video_is_a_task_of_its_own():
    own = torch.tensor([[[0.0, 6.0]], [[0, 9]], [[20, 40]], [[0, 80]]])
    found = library_figures(
        ranking_of(*HITS, own=(own, torch.ones(4, 1).double())),
        asked_sentences(LIBRARY, LIBRARY),
        top_n=(1,),
        top_videos=(1,),
    )
    assert (found['own/R1@0.5'], found['own/R1@0.7']) == (75, 50)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(top_n=(5,)), 'R@5 is asked for, but 4 are ranked'),
        (dict(top_videos=(4,)), 'VR@4 is asked for, but 3 are ranked'),
        (dict(asked=[]), '0 sentences, and hits of 4'),
    ],
)
def test_figures_that_the_hits_do_not_hold_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        figures_of(*HITS, **settings)


def test_a_right_answer_is_found_once():
    answers = torch.tensor([[0.0, 10.0], [20.0, 30.0]])
    one = AskedSentence('x', torch.tensor([0, 1]), answers)
    other = AskedSentence('y', torch.tensor([2]), torch.tensor([[0.0, 50.0]]))
    ranking = ranking_of(
        # right; the same answer again; the second answer; the right span of a wrong video
        [(0, 0, 10), (0, 0, 9), (1, 20, 30), (2, 20, 30)],
        [(1, 0, 50), (2, 0, 50)],
    )
    found = whole_truth_figures(ranking, [one, other], top_n=(1, 2, 4))
    assert found['P@1'] == 50  # 1 and 0 of 1
    assert found['P@2'] == 50  # 1 and 1 of 2
    assert found['P@4'] == 37.5  # 2 and 1 of 4
    assert found['recall@1'] == 25  # 1 of 2, 0 of 1
    assert found['recall@2'] == 75  # 1 of 2, 1 of 1
    assert found['recall@4'] == 100
    assert found['P@all'] == 25  # among the first 2: 1 of 2; among the first one: none


def test_a_hit_takes_the_nearest_answer_and_the_next_one_the_other():
    answers = torch.tensor([[0.0, 10.0], [2.0, 12.0]])
    asked = [AskedSentence('x', torch.tensor([0, 0]), answers)]
    ranking = ranking_of([(0, 2, 12), (0, 0, 10), (0, 1, 11)])
    found = whole_truth_figures(ranking, asked, top_n=(1, 2, 3))
    assert (found['P@2'], found['recall@2']) == (100, 100)
    assert found['P@3'] == pytest.approx(200 / 3)


def test_tvr_files_hold_the_hits_and_give_the_same_figures(tmp_path):
    asked = asked_sentences(LIBRARY, LIBRARY)
    own = torch.tensor([[[0.0, 6.0]], [[0, 9]], [[20, 40]], [[0, 80]]]), torch.ones(4, 1).double()
    ranking = ranking_of(*HITS, own=own)
    write_tvr(tmp_path / 'hits.json', ranking, asked)
    content = json.loads((tmp_path / 'hits.json').read_text())
    assert content['video2idx'] == dict(a=0, b=1, c=2)
    first = dict(desc_id=0, desc='A dog runs.')
    assert content['VCMR'][0] == first | dict(predictions=[[1, 20, 40, 1], [0, 0, 6, 0.5]])
    assert content['VR'][0] == first | dict(predictions=[[1, 0, 0, 0.5], [0, 0, 0, 0.5]])
    assert content['SVMR'][2]['predictions'] == [[1, 20, 40, 1]]
    found = read_tvr(tmp_path / 'hits.json', asked, NAMES, pool=1000)
    settings = dict(top_n=(1, 2), top_videos=(1, 2))
    ranking.own_moments = torch.nn.functional.pad(own[0], (0, 0, 0, 1), value=torch.nan)
    assert library_figures(found, asked, **settings) == library_figures(ranking, asked, **settings)


def test_tvr_files_number_videos_as_they_like_and_are_cut_at_100(tmp_path):
    rows = [[9, 20, 40, 3.5], *([7, 0, 1, 1.0] for _ in range(150))]
    task = [dict(desc_id=0, desc='a dog  runs', predictions=rows)]
    content = dict(video2idx=dict(b=9, a=7), VCMR=task, VR=task)
    (tmp_path / 'hits.json').write_text(json.dumps(content))
    asked = asked_sentences(LIBRARY[1:2], LIBRARY)
    found = read_tvr(tmp_path / 'hits.json', asked, NAMES, pool=5)
    assert found.videos[0, :2].tolist() == [1, 0]
    assert found.videos.shape == (1, 100)
    assert library_figures(found, asked)['R1@0.7'] == 100


BROKEN = {
    'needs "VCMR" and "VR"': lambda c: c.pop('VR'),
    'no "video2idx"': lambda c: c.pop('video2idx'),
    "video .'d'. is not in the library": lambda c: c['video2idx'].update(d=4),
    'VCMR lacks desc_id 0': lambda c: c['VCMR'].clear(),
    "desc_id 0 is 'other', but 'a dog  runs'": lambda c: c['VCMR'][0].update(desc='other'),
    'has no "predictions"': lambda c: c['VR'][0].pop('predictions'),
    'expected .video number, start, end, score': lambda c: c['VR'][0].update(predictions=[[0, 1]]),
    'has the video 5': lambda c: c['VCMR'][0].update(predictions=[[5, 0, 1, 1.0]]),
}


@pytest.mark.parametrize('message', BROKEN)
def test_a_broken_tvr_file_says_what_is_wrong(message, tmp_path):
    task = [dict(desc_id=0, desc='a dog  runs', predictions=[[0, 0, 1, 1.0]])]
    content = dict(video2idx=dict(b=0), VCMR=task, VR=json.loads(json.dumps(task)))
    BROKEN[message](content)
    (tmp_path / 'hits.json').write_text(json.dumps(content))
    asked = asked_sentences(LIBRARY[1:2], LIBRARY)
    with pytest.raises(PredictionsError, match=message):
        read_tvr(tmp_path / 'hits.json', asked, NAMES, pool=5)
