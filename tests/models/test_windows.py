"""Mutual matching of sentences that are true in none, one or several windows, against loops."""

import copy
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_models import batch_of, build_tiny, sample_of
from mmaction.registry import MODELS

from mmn_plugin.errors import InputError
from mmn_plugin.structures import (
    GroundingDataSample,
    MomentGrid,
    best_iou,
    padded_windows,
    temporal_iou,
    true_windows,
)

GRID = MomentGrid(8, [7])
MATCHING = dict(
    num_positive=2,
    negative_iou=0.5,
    sentence_removal_iou=0.3,
    margin=0.3,
    temperature_video=0.1,
    temperature_sentence=0.2,
)
WEIGHT = 0.1  # of the contrastive losses


def head_of(source=None, num_positive=2, **settings):
    return MODELS.build(
        dict(
            type='MutualMatchingHead',
            grid=GRID,
            loss_matching=dict(
                MATCHING, type='MutualMatchingLoss', num_positive=num_positive, chunk_elements=50
            ),
            loss_iou=dict(type='IoURegressionLoss', min_iou=0.2, max_iou=0.9),
            contrastive_weight=WEIGHT,
            score_power=0.5,
            nms_threshold=0.5,
            negatives=source,
            **settings,
        )
    )


@dataclass
class Batch:
    """Embeddings in float64 of videos with so many windows for each of their sentences."""

    moments: dict
    sentences: dict
    samples: list

    @classmethod
    def of(cls, counts, seed=0):
        """Counts of windows by video and sentence, such as ``{'a': [1, 0], 'b': [3]}``."""
        rng = torch.Generator().manual_seed(seed)
        samples = []
        for name, own in counts.items():
            texts = [f'text {(len(own) + place) % 3}' for place in range(len(own))]
            about = dict(video_id=name, duration=20.0 + len(own), sentences=texts)
            samples.append(GroundingDataSample(metainfo=about))
            # many overlap, and of those of two sentences not always the first ones
            starts = [torch.rand(count, generator=rng) * 14 for count in own]
            lengths = [torch.rand(count, generator=rng) * 7 + 1 for count in own]
            pairs = zip(starts, lengths, strict=True)
            windows = [torch.stack([start, start + length], 1) for start, length in pairs]
            samples[-1].gt_instances = true_windows([own.tolist() for own in windows])
        shapes = dict(B=(len(samples), GRID.num_moments, 5), S=(sum(map(len, counts.values())), 5))
        made = [
            {
                space: torch.randn(*shape, generator=rng, dtype=torch.float64).requires_grad_()
                for space in ('iou', 'contrastive')
            }
            for shape in shapes.values()
        ]
        return cls(*made, samples)

    def losses(self, head):
        video = torch.tensor([v for v, s in enumerate(self.samples) for _ in s.sentences])
        return head.loss(self.moments, self.sentences, video, self.samples)

    def entries(self, space='contrastive'):
        """(video, moments (P, J), iou (P,) per window, text, embedding, windows) by sentence."""
        sentences = iter(F.normalize(self.sentences[space], dim=-1))
        videos = F.normalize(self.moments[space], dim=-1)
        for sample, moments in zip(self.samples, videos, strict=True):
            spans = GRID.spans(sample.duration)
            for text, windows in zip(sample.sentences, sample.windows, strict=True):
                ious = [temporal_iou(window, spans).double() for window in windows]
                best = torch.stack(ious).amax(0) if ious else torch.zeros(len(spans)).double()
                yield sample.video_id, moments, ious, best, text, next(sentences), windows


def positives_of(ious, best, mode, count):
    """(moment, place of its window) of one sentence."""
    if not ious:
        return []
    if mode == 'window':
        return [
            (moment, place)
            for place, iou in enumerate(ious)
            for moment in iou.topk(count).indices.tolist()
        ]
    return [
        (moment, max(range(len(ious)), key=lambda place: ious[place][moment]))
        for moment in best.topk(count).indices.tolist()
    ]


def by_definition(batch, mode='window', absent='repel', count=2, same_text=False):
    """``loss_vid``, ``loss_sent`` and ``loss_iou``, moment by moment and sentence by sentence."""
    seen = [entry for entry in batch.entries() if entry[2] or absent == 'repel']
    videos = F.normalize(batch.moments['contrastive'], dim=-1)
    vid, sent = [], []
    for name, moments, ious, best, text, sentence, windows in batch.entries():
        for moment, window in positives_of(ious, best, mode, count):
            positive = moments[moment] @ sentence - MATCHING['margin']
            t = MATCHING['temperature_video']
            total = (positive / t).exp()
            for other, _, _, _, own_text, embedding, own_windows in seen:
                near = other == name and any(
                    temporal_iou(windows[window], one) >= MATCHING['sentence_removal_iou']
                    for one in own_windows
                )
                twin = same_text and other != name and own_text == text
                if not near and not twin:
                    total = total + (moments[moment] @ embedding / t).exp()
            vid.append(total.log() - positive / t)
            t = MATCHING['temperature_sentence']
            total = (positive / t).exp() + 1e-6
            for sample, candidates in zip(batch.samples, videos, strict=True):
                other = sample.video_id
                q = torch.ones(len(candidates), dtype=torch.float64)
                if other == name:
                    q = q * (best < MATCHING['negative_iou'])
                for entry in batch.entries() if same_text and other != name else ():
                    if entry[0] == other and entry[4] == text:
                        q = q * (entry[3] < MATCHING['negative_iou'])
                total = total + (q * (candidates @ sentence) / t).exp().sum()
            sent.append(total.log() - positive / t)
    nothing = batch.moments['contrastive'].sum() * 0
    matching = [WEIGHT * torch.stack(terms).mean() if terms else nothing for terms in (vid, sent)]
    return [*matching, iou_by_definition(batch, absent)]


def iou_by_definition(batch, absent):
    terms = []
    for _, moments, ious, best, _, sentence, _ in batch.entries('iou'):
        if ious or absent == 'repel':
            target = ((best - 0.2) / 0.7).clamp(0, 1)
            score = (10 * moments @ sentence).sigmoid()
            terms.append(-(target * score.log() + (1 - target) * (1 - score).log()).mean())
    return torch.stack(terms).mean() if terms else batch.moments['iou'].sum() * 0


def assert_as_defined(losses, expected, batch):
    """Values and all gradients."""
    inputs = [
        side[space] for side in (batch.moments, batch.sentences) for space in ('iou', 'contrastive')
    ]
    for value, wanted in zip(losses, expected, strict=True):
        assert value.item() == pytest.approx(wanted.item(), rel=1e-6, abs=1e-12)
        ours, reference = (
            torch.autograd.grad(loss, inputs, retain_graph=True, materialize_grads=True)
            for loss in (value, wanted)
        )
        for one, other in zip(ours, reference, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)


MIXED = [
    {'a': [1, 1], 'b': [1]},
    {'a': [2, 1], 'b': [3]},
    {'a': [0, 1, 4, 3], 'b': [2, 0, 2, 3, 1], 'c': [1]},
    {'a': [0, 0], 'b': [2]},
    {'a': [0, 0], 'b': [0]},
]


@pytest.mark.parametrize('absent', ['repel', 'ignore'])
@pytest.mark.parametrize('mode', ['window', 'sentence'])
@pytest.mark.parametrize('counts', MIXED, ids=str)
def test_losses_and_gradients_are_those_of_loops_over_windows(counts, mode, absent):
    batch = Batch.of(counts)
    for count, same_text in ((1, False), (3, False), (2, True)):
        source = dict(exclude_same_text=same_text)
        head = head_of(source, num_positive=count, positives=mode, absent=absent)
        losses = batch.losses(head)
        assert list(losses) == ['loss_vid', 'loss_sent', 'loss_iou']
        expected = by_definition(batch, mode, absent, count, same_text)
        assert_as_defined(losses.values(), expected, batch)


def test_a_sentence_that_does_not_occur_repels_unless_it_is_ignored():
    batch = Batch.of({'a': [0, 1], 'b': [1]})
    moved = {}
    for absent in ('repel', 'ignore'):
        losses = batch.losses(head_of(absent=absent))
        gradients = torch.autograd.grad(
            sum(losses.values()), [batch.sentences[space] for space in ('iou', 'contrastive')]
        )
        moved[absent] = [bool(gradient[0].abs().max() > 0) for gradient in gradients]
        assert all(gradient[1:].abs().max() > 0 for gradient in gradients)
    assert moved == dict(repel=[True, True], ignore=[False, False])


def test_each_window_has_positives_where_a_setting_says_so():
    sample = GroundingDataSample(metainfo=dict(video_id='a', duration=8.0, sentences=['text']))
    sample.gt_instances = true_windows([[(0, 1), (4, 8)]])
    found = {}
    for mode in ('window', 'sentence'):
        own = head_of(num_positive=1, positives=mode)._positives(sample.windows, [sample])
        spans = GRID.spans(8.0)[own.moments]
        found[mode] = spans[:, 0].tolist(), own.sentence.tolist(), own.window.tolist()
    assert found['window'] == ([[0, 1], [4, 8]], [0, 0], [[0], [1]])
    assert found['sentence'][1:] == ([0], [[0]])


@pytest.mark.parametrize('piece', [None, 1])
@pytest.mark.parametrize('absent', ['repel', 'ignore'])
def test_a_batch_in_which_nothing_occurs_is_a_step_like_any_other(absent, piece):
    model = build_tiny(head=dict(absent=absent, negatives=dict(piece=piece))).train()
    samples = [sample_of('v', ['the box', 'the red box']), sample_of('vv', ['the blue box'])]
    for sample in (nothing := copy.deepcopy(samples)):
        sample.gt_instances = true_windows([[] for _ in sample.sentences])
    for batch in (samples, nothing, samples):
        losses = model(**batch_of(model, batch), mode='loss')
        sum(losses.values()).backward()
        values = {name: value.item() for name, value in losses.items()}
        if batch is nothing:
            assert values['loss_vid'] == values['loss_sent'] == 0
            assert (values['loss_iou'] > 0) == (absent == 'repel')
        else:
            assert min(values.values()) > 0
        for name, weight in model.named_parameters():
            assert weight.grad is None or weight.grad.isfinite().all(), name


def test_the_best_window_counts_and_none_is_an_iou_of_zero():
    windows = [torch.tensor([[0.0, 2], [4, 8]]), torch.zeros(0, 2), torch.tensor([[0.0, 8]])]
    padded = padded_windows(windows)
    assert padded.shape == (3, 2, 2)
    assert padded.isnan().sum() == 2 * 3
    found = best_iou(padded, torch.tensor([[0.0, 2.0], [5, 8], [2, 4]]))
    assert found.tolist() == [[1, 0.75, 0], [0, 0, 0], [0.25, 0.375, 0.25]]
    assert padded_windows([torch.zeros(0, 2)]).shape == (1, 1, 2)
    assert padded_windows([]).shape == (0, 1, 2)
    assert torch.equal(GRID.best_iou(windows, 8.0), best_iou(padded, GRID.spans(8.0)))


@pytest.mark.parametrize('settings', [dict(positives='best'), dict(absent=None)])
def test_other_settings_are_refused(settings):
    (name,) = settings
    with pytest.raises(InputError, match=rf'model\.head\.{name}=.*: give '):
        head_of(**settings)
