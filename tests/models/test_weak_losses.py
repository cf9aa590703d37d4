"""The losses of weakly-supervised grounding against loops, and where there is nothing to learn."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.random_candidates import joined_candidates, random_candidates
from mmaction.registry import MODELS

from mmn_plugin.models import Negatives, NegativeSource
from mmn_plugin.models.losses import SelfContrastLoss, VideoMatchingLoss


def weak_candidates(*arguments, **options):
    """As `random_candidates`, of which nobody knows when."""
    candidates = random_candidates(*arguments, **options)
    candidates.ground_truth = candidates.iou = None
    return candidates


def matching(own, source=None):
    loss = VideoMatchingLoss(temperature=0.2, top_share=0.4, pooling_temperature=0.1)
    return loss, loss(own, (source or NegativeSource()).collect(own))


def pooled(loss, video, sentence):
    best = (video @ sentence).sort(descending=True).values[: max(1, round(0.4 * len(video)))]
    return ((best / 0.1).softmax(0) @ best / loss.temperature).item()


def by_definition(loss, own, *pools, excluded=frozenset(), weights=(1.0,)):
    """Sentence by sentence, against all candidates; texts ``excluded`` repel nothing."""
    of_video, of_sentence = [], []
    for s, v in enumerate(own.sentence_video):
        name, positive = own.video_ids[v], pooled(loss, own.moments[v], own.sentences[s])
        video_total = sentence_total = math.exp(positive)
        for seen, weight in zip(pools, weights, strict=True):
            same = {
                t
                for t in range(len(seen.sentences))
                if own.texts[s] in excluded and seen.texts[t] == own.texts[s]
            }
            twins = {seen.video_ids[seen.sentence_video[t]] for t in same}
            sentence_total += weight * sum(
                math.exp(pooled(loss, seen.moments[w], own.sentences[s]))
                for w, other in enumerate(seen.video_ids)
                if other not in {name, *twins}
            )
            video_total += weight * sum(
                math.exp(pooled(loss, own.moments[v], seen.sentences[t]))
                for t, w in enumerate(seen.sentence_video)
                if seen.video_ids[w] != name and t not in same
            )
        of_video.append(math.log(video_total) - positive)
        of_sentence.append(math.log(sentence_total) - positive)
    return np.mean(of_video), np.mean(of_sentence)


def values(found):
    return [value.item() for value in found]


def test_both_directions_equal_a_loop_over_pairs():
    own = weak_candidates([2, 1, 3], 'abc')
    loss, found = matching(own)
    assert values(found) == pytest.approx(by_definition(loss, own, own))
    own = weak_candidates([1, 2, 1], 'abc', texts=['same', 'other', 'third', 'same'])
    loss, compared = matching(own, NegativeSource(exclude_same_text=True))
    assert values(compared) == pytest.approx(by_definition(loss, own, own, excluded={'same'}))
    assert matching(own)[1] != compared


def test_where_there_is_nothing_to_compare_with_nothing_moves():
    own = weak_candidates([2], 'a', texts=['same', 'same'])
    own.moments.requires_grad_()
    _, found = matching(own)
    assert values(found) == [0.0, 0.0]
    sum(found).backward()
    assert torch.equal(own.moments.grad, torch.zeros_like(own.moments))
    twins = weak_candidates([1, 1], 'ab', texts=['same', 'same'])
    assert values(matching(twins, NegativeSource(exclude_same_text=True))[1]) == [0.0, 0.0]


def test_candidates_of_other_ranks_are_weighted_negatives_and_need_no_timestamps():
    first, own = weak_candidates([2, 1], 'ab'), weak_candidates([1, 2], 'cd')
    loss, _ = matching(own)
    negatives = Negatives.of(joined_candidates(first, own), own, (2, 3), weight=0.3)
    expected = by_definition(loss, own, own, first, weights=(1.0, 0.3))
    assert values(loss(own, negatives)) == pytest.approx(expected)
    alone = weak_candidates([1], 'c', texts=['four'])  # all negatives are the others'
    negatives = Negatives.of(joined_candidates(alone, first), alone, (0, 0), exclude_same_text=True)
    assert values(loss(alone, negatives)) == pytest.approx(by_definition(loss, alone, first))


CONTRAST = dict(temperature=0.1, threshold=0.5, num_hard=1)


def contrast(**changes):
    return SelfContrastLoss(**(CONTRAST | changes))


def of_one(loss, clips, window=1, scoring=None):
    """Loss of one video with one sentence."""
    return loss(clips if scoring is None else scoring, clips, SENTENCE, VIDEO, VIDEO, window)


def curve_video(scores):
    """Clips (1, N, 2) whose cosines with the sentence (1, 0) are the scores."""
    scores = torch.tensor(scores, dtype=torch.float64)
    return torch.stack([scores, (1 - scores**2).sqrt()], -1)[None]


SENTENCE, VIDEO = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([0])


def test_hard_negatives_are_the_nearest_background_and_what_is_beside_the_foreground():
    nearness = torch.tensor([[0.8, 0.1, 0.2, 0.9, 1.0, 0.3, 0.7, 0.6]])
    foreground = torch.tensor([[0, 0, 0, 1, 1, 0, 0, 0]], dtype=torch.bool)
    for count, wanted in (
        (0, {2, 5}),
        (1, {0, 2, 5}),
        (2, {0, 2, 5, 6}),
        (99, {0, 1, 2, 5, 6, 7}),
        (None, {0, 1, 2, 5, 6, 7}),
    ):
        hard = contrast(num_hard=count).hard_negatives(nearness, ~foreground)
        assert set(hard[0].nonzero()[:, 0].tolist()) == wanted


def test_a_stage_equals_its_definition():
    clips = curve_video([0.1, 0.2, 0.9, 0.8, 0.3, 0.0])
    loss = of_one(contrast(num_hard=0, prototype_weight=0.5), clips)
    prototype = F.normalize(clips[0, 2] + clips[0, 3], dim=0)
    terms = []
    for i in (2, 3):
        for anchor, positive, weight in (
            (SENTENCE[0], clips[0, i], 1.0),
            (clips[0, i], prototype, 0.5),
        ):
            logits = torch.stack([anchor @ positive, anchor @ clips[0, 1], anchor @ clips[0, 4]])
            terms.append(-weight * (logits / 0.1).log_softmax(0)[0])
    assert loss.item() == pytest.approx(sum(terms).item() / 2)


def test_a_window_repels_the_sentences_of_its_video_that_are_not_about_it():
    generator = torch.Generator().manual_seed(3)
    clips = F.normalize(torch.randn(2, 9, 4, generator=generator, dtype=torch.float64), dim=-1)
    sentences = F.normalize(torch.randn(5, 4, generator=generator, dtype=torch.float64), dim=-1)
    sentences[4] = sentences[3]  # one sentence twice
    video = [0, 0, 0, 1, 1]
    arguments = clips, clips, sentences, torch.tensor(video), torch.tensor([0, 1, 2, 3, 4]), 1
    chosen = []
    for s, v in enumerate(video):
        scores = clips[v] @ sentences[s]
        half = (scores.min() + scores.max()) / 2
        chosen.append({t for t in range(9) if scores[t] >= half})
    means, counts = [], []
    for s, v in enumerate(video):
        terms = []
        for t in chosen[s]:
            others = [o for o in range(5) if video[o] == v and t not in chosen[o]]
            logits = sentences[[s, *others]] @ clips[v, t] / 0.1
            terms.append(-logits.log_softmax(0)[0])
            counts.append(len(others))
        means.append(torch.stack(terms).mean())
    assert set(counts) == {0, 1, 2}
    found = contrast(sentence_weight=0.3)(*arguments) - contrast()(*arguments)
    torch.testing.assert_close(found, 0.3 * torch.stack(means).mean())


def test_one_text_twice_in_a_video_never_repels_itself():
    clips = curve_video([0.0, 0.2, 0.9, 0.8, 0.3, 0.1])
    # dropout makes the embeddings of one text differ, and so their foregrounds
    sentences = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 3.0]], dtype=torch.float64), dim=-1)
    arguments = clips, clips, sentences, torch.tensor([0, 0])
    apart, same = (
        contrast(sentence_weight=1.0)(*arguments, torch.tensor(texts), 1).item()
        for texts in ([0, 1], [4, 4])
    )
    assert same == pytest.approx(contrast()(*arguments, torch.tensor([0, 1]), 1).item())
    assert apart > same


def test_what_lies_between_the_thresholds_is_neither():
    clips = curve_video([0.0, 0.5, 0.9, 1.0, 0.6, 0.1])
    without, between = clips.clone(), contrast(threshold=0.85, background=0.3, num_hard=0)
    without[0, 1] = without[0, 4] = torch.tensor([0.55, -0.8352], dtype=torch.float64)
    loss = of_one(between, clips)
    assert of_one(between, without).item() == pytest.approx(loss.item())
    assert of_one(contrast(threshold=0.85, num_hard=0), clips) != loss


def test_foreground_follows_the_stage_before_and_has_no_gradient():
    scoring = curve_video([0.9, 0.8, 0.1, 0.0]).requires_grad_()
    clips = curve_video([0.0, 0.1, 0.8, 0.9]).requires_grad_()
    of_one(contrast(), clips, scoring=scoring).backward()
    assert scoring.grad is None
    assert (clips.grad[0, 0] @ SENTENCE[0]) < 0 < (clips.grad[0, 2] @ SENTENCE[0])


def test_a_video_no_longer_than_a_window_or_of_one_score_adds_nothing():
    clips = curve_video([0.9, 0.1, 0.2]).requires_grad_()
    assert of_one(contrast(), clips, 2).item() > 0
    for window in (3, 8):
        loss = of_one(contrast(), clips, window)
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(clips.grad, torch.zeros_like(clips))
    assert of_one(contrast(), curve_video([0.4] * 6), 2).item() == 0
    clips = curve_video([0.0, 0.2, 0.4, 0.6, 0.8])  # the last window may be shorter
    assert SelfContrastLoss.windows(clips, 2).shape == (1, 3, 2)
    torch.testing.assert_close(SelfContrastLoss.windows(clips, 2)[0, 2], clips[0, 4])


@pytest.mark.parametrize(
    ('kind', 'settings', 'message'),
    [
        ('VideoMatchingLoss', dict(top_share=0.0), 'top_share=0'),
        ('VideoMatchingLoss', dict(temperature=0.0), 'temperature=0'),
        ('SelfContrastLoss', dict(threshold=1.0), 'threshold=1.0'),
        ('SelfContrastLoss', dict(num_hard=-1), 'num_hard=-1'),
        ('SelfContrastLoss', dict(num_hard=2.5), 'num_hard=2.5'),
        ('SelfContrastLoss', dict(temperature=math.nan), 'nan'),
        ('SelfContrastLoss', dict(background=0.6), 'background=0.6'),
        ('SelfContrastLoss', dict(sentence_weight=-1.0), 'sentence_weight=-1.0'),
    ],
)
def test_settings_out_of_range_are_named(kind, settings, message):
    base = CONTRAST if kind == 'SelfContrastLoss' else dict(temperature=0.1, top_share=0.1)
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type=kind, **(base | settings)))
