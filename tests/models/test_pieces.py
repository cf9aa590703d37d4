"""A batch that is embedded piece by piece has the losses and gradients of the batch at once."""

import copy
import logging
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.made_up_tubes import random_video, tube_sample
from helpers.tiny_corpus import FEATURE_SIZE, NUM_SEGMENTS
from helpers.tiny_models import batch_of, build_tiny, sample_of
from memory_estimate import growth_on_cpu
from mmengine.optim import OptimWrapper
from torch import nn

from mmn_plugin.engine import LossCheck
from mmn_plugin.errors import InputError
from mmn_plugin.models import NegativeSource
from mmn_plugin.structures import true_windows

SENTENCES = ['a person opens the door', 'the red box', 'then the box', 'the blue box closes slowly']
COUNTS = (1, 4, 2, 1, 3, 1, 2)  # sentences of each video


def videos(counts=COUNTS, first=0, windows=None):
    """Videos whose ids, and so their features, differ in length; sentences with so many windows,
    in turn.
    """
    made = [
        sample_of('v' * (first + place + 1), SENTENCES[:count], duration=20.0 + place)
        for place, count in enumerate(counts)
    ]
    for place, sample in enumerate(made if windows else ()):
        numbers = range(place, place + len(sample.sentences))
        own = [[(k, k + 5.0 + n) for k in range(windows[n % len(windows)])] for n in numbers]
        sample.gt_instances = true_windows(own)
    return made


def model_of(name='mmn_charades.py', trained_norm=False, dtype=torch.float64, **settings):
    """In training; BatchNorm, unless trained, is frozen on made-up statistics."""
    source, head = settings.pop('negatives', {}), settings.pop('head', {})
    model = build_tiny(name, head=dict(head, negatives=source), **settings).to(dtype).train()
    for norm in norms_of(model):
        norm.running_mean.uniform_(-0.1, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
        norm.train(trained_norm)
    return model


def norms_of(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def cast(batch, dtype=torch.float64):
    return dict(batch, inputs=batch['inputs'].to(dtype))


def step(model, batch):
    """Losses, and gradients, which are then taken away."""
    losses = model(**batch, mode='loss')
    sum(losses.values()).backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    return {name: value.detach() for name, value in losses.items()}, gradients


def assert_same(actual, expected, bound=1e-9):
    """Each relative to its own largest value, or to a millionth of that of all: what is zero but
    for rounding (the biases of the language model's keys) agrees with nothing.
    """
    assert actual.keys() == expected.keys()
    used = {name: value for name, value in expected.items() if value is not None}
    floor = 1e-6 * max(value.abs().max() for value in used.values())
    for name, value in used.items():
        assert (actual[name] - value).abs().max() <= bound * max(value.abs().max(), floor), name


def tube_batch(model):
    """Videos of 1 to 3 tubes and 1 or 2 sentences."""
    rng, numbers, samples = torch.Generator().manual_seed(0), np.random.default_rng(0), []
    for place, count in enumerate(COUNTS):
        video = random_video(numbers, f'v{place}', 1 + place % 3, 1 + count % 2)
        samples.append(tube_sample(replace(video, sentences=SENTENCES[: len(video.sentences)])))
    shape = NUM_SEGMENTS, FEATURE_SIZE
    inputs = [torch.randn(len(s.tubes), *shape, generator=rng) for s in samples]
    return model.data_preprocessor(dict(inputs=inputs, data_samples=samples))


KEPT = dict(
    backbone=dict(keep_features=True),
    neck=dict(features=FEATURE_SIZE, embed_channels=FEATURE_SIZE),
    text_encoder=dict(embed_channels=FEATURE_SIZE),
)
CASES = {
    'MMN': {},
    'cells': dict(neck=dict(conv_mode='sparse')),
    'texts': dict(negatives=dict(exclude_same_text=True)),
    'a frozen language model': dict(text_encoder=dict(frozen=True)),
    'meanings': dict(text_encoder=dict(frozen=True), negatives=dict(exclude_similar=0.5)),
    'features that are kept': KEPT,
    'several windows, and none': dict(head=dict(positives='sentence')),
    'sentences that are ignored': dict(head=dict(absent='ignore')),
    'MSCL': dict(name='mscl_charades.py'),
    'tubes': dict(name='mmn_hcstvg.py'),
}


@pytest.mark.parametrize('case', CASES)
def test_losses_and_gradients_are_those_of_the_batch_at_once(case):
    model = model_of(**copy.deepcopy(CASES[case]))
    if case == 'tubes':
        batches = [tube_batch(model)]
    else:
        windows = (0, 2, 1) if 'head' in CASES[case] else None
        made = videos(windows=windows), videos((2, 1, 1, 5), first=5, windows=windows)
        batches = [batch_of(model, samples) for samples in made]
    found = {}
    for piece in (None, 3):
        model.head.negatives = NegativeSource(**CASES[case].get('negatives', {}), piece=piece)
        found[piece] = [step(model, cast(batch)) for batch in batches]
    for whole, pieces in zip(found[None], found[3], strict=True):
        for expected, actual in zip(whole, pieces, strict=True):
            assert_same(actual, expected)
    used = {name for name, value in found[3][0][1].items() if value is not None}
    assert any('neck' in name for name in used)
    frozen = 'frozen' in CASES[case].get('text_encoder', {})
    assert any('bert' in name for name in used) == (not frozen)


def two_passes(model, batch, piece, bf16):
    """Gradient caching written out; losses, and statistics between the passes."""
    autocast = partial(torch.autocast, 'cpu', torch.bfloat16, enabled=bf16)
    samples, sentences, parts, states = batch['data_samples'], batch['sentences'], [], []
    pieces = []
    for first in range(0, len(samples), piece):
        own = (sentences.video >= first) & (sentences.video < first + piece)
        rows = own.nonzero().flatten().tolist()
        pieces.append((batch['inputs'][first : first + piece], sentences.take(rows)))
    for part in pieces:
        states.append(torch.get_rng_state())
        with autocast(), torch.no_grad():
            parts.append(flat(model(*part, mode='tensor')))
    after = torch.get_rng_state()
    statistics = copy.deepcopy(dict(model.named_buffers()))
    leaves = [torch.cat(rows).requires_grad_() for rows in zip(*parts, strict=True)]
    sides = (
        dict(zip(('iou', 'contrastive'), side, strict=True)) for side in (leaves[:2], leaves[2:])
    )
    losses = model.head.loss(*sides, sentences.video, samples)
    sum(losses.values()).backward()
    sizes = [[len(rows) for rows in part] for part in zip(*parts, strict=True)]
    cached = (leaf.grad.split(own) for leaf, own in zip(leaves, sizes, strict=True))
    for part, state, gradients in zip(pieces, states, zip(*cached, strict=True), strict=True):
        torch.set_rng_state(state)
        with autocast():
            again = flat(model(*part, mode='tensor'))
        torch.autograd.backward(again, gradients)
    torch.set_rng_state(after)
    return losses, statistics


def flat(sides):
    return [side[space] for side in sides for space in ('iou', 'contrastive')]


@pytest.mark.parametrize('bf16', [False, True], ids=['float64', 'bfloat16'])
def test_dropout_and_statistics_of_pieces_are_those_of_two_passes_written_out(bf16):
    model = model_of(trained_norm=True, dtype=torch.float32 if bf16 else torch.float64)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    written = copy.deepcopy(model)
    batch = cast(batch_of(model, videos()), model.backbone.conv.weight.dtype)
    torch.manual_seed(7)
    expected, statistics = two_passes(written, batch, 3, bf16)
    after = torch.get_rng_state()
    torch.manual_seed(7)
    model.head.negatives = NegativeSource(piece=3)
    with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
        losses = model(**batch, mode='loss')
    sum(losses.values()).backward()
    bound = 1e-5 if bf16 else 1e-9
    assert_same(losses, expected, bound)
    gradients = [{n: w.grad for n, w in each.named_parameters()} for each in (model, written)]
    assert_same(*gradients, bound)
    for name, value in model.named_buffers():
        torch.testing.assert_close(value, statistics[name], msg=name)
    assert norms_of(model)[0].num_batches_tracked == 3
    assert torch.equal(torch.get_rng_state(), after)


WHOLE = dict(piece=3, piece_statistics='whole')
ENCODERS = [
    dict(conv_mode='dense'),
    dict(conv_mode='dense', gradient_checkpointing=True),
    dict(conv_mode='sparse'),
    dict(conv_mode='strips'),
]


@pytest.mark.parametrize('encoder', ENCODERS, ids=str)
def test_with_the_statistics_of_the_whole_batch_losses_are_its_and_gradients_hold_them_constant(
    encoder,
):
    plain, pieces, constant = (
        model_of(trained_norm=True, neck=neck) for neck in (ENCODERS[0], encoder, ENCODERS[0])
    )
    batch, taken = cast(batch_of(plain, videos())), []
    for norm in norms_of(plain):
        norm.register_forward_pre_hook(
            lambda _, args: taken.append(torch.var_mean(args[0], (0, 2, 3), correction=0))
        )
    expected, of_plain = step(plain, batch)
    for norm, (variance, mean) in zip(norms_of(constant), taken, strict=True):
        norm.eval()
        norm.running_mean, norm.running_var = mean.detach(), variance.detach()
    _, gradients = step(constant, batch)
    pieces.head.negatives = NegativeSource(**WHOLE)
    losses, actual = step(pieces, batch)
    assert_same(losses, expected)
    assert_same(actual, gradients)
    with pytest.raises(AssertionError):
        assert_same(actual, of_plain)
    for (name, value), buffer in zip(plain.named_buffers(), pieces.buffers(), strict=True):
        torch.testing.assert_close(buffer, value, msg=name)
    assert all(norm.training for norm in norms_of(pieces))


def test_a_norm_that_is_used_twice_has_no_statistics_of_the_whole_batch():
    model = model_of(trained_norm=True, negatives=WHOLE, neck=dict(conv_mode='dense'))
    model.neck.encoder.bn[1] = model.neck.encoder.bn[0]
    with pytest.raises(InputError, match="8 channels is used twice; set piece_statistics='piece'"):
        model(**cast(batch_of(model, videos())), mode='loss')


def test_a_skipped_batch_leaves_no_trace():
    model = model_of(trained_norm=True, negatives=dict(piece=3))
    runner = SimpleNamespace(
        model=model, logger=logging.getLogger(), epoch=0, iter=0, optim_wrapper=None
    )
    runner.optim_wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.1))
    (check := LossCheck('skip')).prepare(runner)
    samples = videos()
    inputs = torch.randn(len(samples), NUM_SEGMENTS, FEATURE_SIZE, dtype=torch.float64)
    check.train_step(runner, 0, dict(inputs=inputs, data_samples=samples))
    before = copy.deepcopy(model.state_dict())
    inputs[4] = torch.nan  # in the second piece
    check.train_step(runner, 1, dict(inputs=inputs, data_samples=samples))
    assert check.skipped
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (partial(NegativeSource, piece=0), r'negatives\.piece=0: give a number of videos, or None'),
        (partial(NegativeSource, videos_per_step=1.5), r'negatives\.videos_per_step=1\.5: give'),
        (partial(NegativeSource, piece=2, piece_statistics='all'), "give 'piece' or 'whole'"),
        (partial(NegativeSource, piece_statistics='whole'), 'without `piece` it has no effect'),
        (
            partial(model_of, negatives=dict(piece=3), neck=dict(compile=True)),
            r'neck\.compile=True and model\.head\.negatives\.piece=3 do not go together',
        ),
        (
            partial(model_of, 'mmn_hcstvg.py', negatives=dict(weight=0.5)),
            r'negatives\.weight: there is no such setting here; there are videos_per_step, piece, ',
        ),
    ],
)
def test_settings_that_do_not_exist_or_go_together_are_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()


WIDE = dict(
    backbone=dict(out_channels=64),
    neck=dict(channels=64, embed_channels=8),
    text_encoder=dict(frozen=True),
)


def test_memory_grows_with_the_piece_and_hardly_with_the_batch():
    peaks = {}
    for count, piece in ((8, 2), (8, 4), (16, 2), (8, None), (16, None)):
        model = model_of(negatives=dict(piece=piece), **WIDE)
        batch = cast(batch_of(model, videos((1,) * count)))
        step(model, batch)  # what a run keeps is made in its first step
        peaks[count, piece] = growth_on_cpu(partial(step, model, batch))
    assert peaks[16, None] > 1.8 * peaks[8, None]
    assert peaks[16, 2] < 1.1 * peaks[8, 2]
    assert peaks[8, 4] > 1.4 * peaks[8, 2]
    assert peaks[16, 2] < 0.25 * peaks[16, None]
