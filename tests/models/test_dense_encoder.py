"""Settings of the dense moment encoder, which change how it computes and not what."""

import copy
import pickle

import pytest
import torch
from helpers.moment_encoders import assert_same, encoders, inputs, kept_bytes, passes
from torch._dynamo.backends.common import aot_autograd
from torch.utils._python_dispatch import TorchDispatchMode

from mmn_plugin.models.necks import MomentEncoder
from mmn_plugin.structures import MomentGrid

SIZE = 16, [7, 4], 5, 3
DENSE = dict(conv_mode='dense')
COMPILED = dict(DENSE, compile=dict(backend='aot_eager'))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize(
    'settings',
    [
        dict(memory_format='channels_last'),
        dict(memory_format='channels_last', gradient_checkpointing=True),
        dict(memory_format='channels_last', compile=dict(backend='aot_eager')),
    ],
)
def test_no_setting_changes_result_gradients_or_statistics(settings, training, said):
    other = DENSE | settings
    plain, changed, grid = encoders(SIZE, 6, torch.float64, training, (DENSE, other))
    assert_same(plain, changed, *inputs(grid, 2, 6, torch.float64))
    assert said == []  # nothing fell back


class Layouts(TorchDispatchMode):
    """Whether inputs of convolutions were channels-last, and how many there were."""

    def __init__(self):
        super().__init__()
        self.channels_last = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket is torch.ops.aten.convolution:
            layout = torch.channels_last
            self.channels_last.append(args[0].is_contiguous(memory_format=layout))
        return func(*args, **(kwargs or {}))


def test_maps_are_channels_last_through_all_layers_and_weights_as_they_were():
    plain, changed, grid = encoders(
        SIZE, settings=(DENSE, dict(DENSE, memory_format='channels_last'))
    )
    for encoder, expected in ((plain, [False] * 3), (changed, [True] * 3)):
        with Layouts() as layouts:
            encoder(inputs(grid)[0])
        assert layouts.channels_last == expected
        assert encoder.convs[0].weight.is_contiguous()


@pytest.mark.parametrize('momentum', [0.1, None])
def test_gradient_checkpointing_keeps_less_repeats_no_convolution_and_changes_no_bit(momentum):
    plain, less, grid = encoders(SIZE, settings=(DENSE, dict(DENSE, gradient_checkpointing=True)))
    moments, weights = inputs(grid)
    for norm in (*plain.bn, *less.bn):
        norm.momentum = momentum
    with Layouts() as layouts:
        actual, gradients = passes(less, moments, weights)
    assert len(layouts.channels_last) == len(less.convs)
    expected, of_plain = passes(plain, moments, weights)
    assert torch.equal(actual, expected)
    assert all(torch.equal(gradients[key], of_plain[key]) for key in of_plain)
    assert plain.bn[0].num_batches_tracked == 1
    for (key, value), buffer in zip(plain.named_buffers(), less.buffers(), strict=True):
        assert torch.equal(buffer, value), key
    assert kept_bytes(less, moments) < 0.45 * kept_bytes(plain, moments)


def autocasts_own(encoder, moments):
    """The definition, with everything in the precision that autocast chooses.

    The result is float32; a linear layer, which comes next, takes it in bfloat16.
    """
    grid_size = encoder.num_clips
    hidden = moments.new_zeros(*moments.shape[:2], grid_size**2)
    hidden = hidden.index_copy(2, encoder.cells, moments).unflatten(2, (grid_size, grid_size))
    for layer, (conv, norm) in enumerate(zip(encoder.convs, encoder.bn, strict=True)):
        hidden = norm(conv(hidden)).relu() * (1 / getattr(encoder, f'divisor_{layer}'))
    return hidden.flatten(2)[..., encoder.cells].bfloat16()


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize(
    'settings',
    [{}, dict(memory_format='channels_last'), dict(gradient_checkpointing=True), COMPILED],
)
def test_bfloat16_is_no_further_from_exact_than_autocasts_own(settings, training, said):
    own, encoder, grid = encoders(
        'charades_sta', 16, training=training, settings=(DENSE, DENSE | settings)
    )
    moments, weights = inputs(grid, channels=16)
    exact, _ = passes(copy.deepcopy(own).double(), moments.double(), weights.double())
    own.forward = autocasts_own.__get__(own)
    errors = [
        (passes(one, moments, weights, autocast=True)[0].double() - exact).norm()
        for one in (own, encoder)
    ]
    assert 0 < errors[1] <= 1.05 * errors[0]
    assert said == []


def test_compilation_covers_both_passes_once_and_is_no_part_of_a_copy():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    settings = DENSE, dict(DENSE, compile=dict(backend=backend))
    _, encoder, grid = encoders(SIZE, settings=settings)
    moments, weights = inputs(grid)
    for _ in range(2):
        passes(encoder, moments, weights)
    assert len(graphs) == 1
    assert encoder.bn[0].num_batches_tracked == 2
    assert copy.deepcopy(encoder)._compiled is None
    assert encoder.state_dict().keys() == MomentEncoder(grid, 8, 5, 3).state_dict().keys()
    exported = torch.export.export(encoder.eval(), (moments,)).module()
    torch.testing.assert_close(exported(moments), encoder(moments))


def test_a_compiled_encoder_can_be_pickled():
    plain, encoder, grid = encoders(SIZE, settings=(DENSE, COMPILED), training=False)
    moments, _ = inputs(grid)
    encoder(moments)
    torch.testing.assert_close(pickle.loads(pickle.dumps(encoder))(moments), plain(moments))


def no_compiler(*_):
    raise RuntimeError('there is no compiler')


@pytest.mark.parametrize(
    'backend',
    [
        no_compiler,
        aot_autograd(fw_compiler=lambda graph, _: graph.forward, bw_compiler=no_compiler),
    ],
    ids=['forward', 'backward'],
)
def test_what_cannot_be_compiled_is_computed_without_after_one_message(backend, said):
    settings = DENSE, dict(DENSE, compile=dict(backend=backend))
    plain, encoder, grid = encoders(SIZE, dtype=torch.float64, settings=settings)
    moments, weights = inputs(grid, dtype=torch.float64)
    assert_same(plain, encoder, moments, weights)
    encoder(moments)
    assert len(said) == 1
    assert 'there is no compiler' in said[0]
    assert encoder.bn[0].num_batches_tracked == 2


def test_settings_that_do_not_exist_or_go_together_are_refused():
    grid = MomentGrid(8, [3])
    for settings, message in (
        (dict(memory_format='nhwc'), "'nhwc' is none of None, contiguous_format, channels_last"),
        (dict(strip_rows=0), 'strip_rows=0; give a whole number of 1 or more'),
        (dict(strip_rows='x'), "strip_rows='x'; give a whole number"),
        (dict(strip_rows=2.5), 'strip_rows=2.5; give a whole number'),
        (dict(compile=None), 'compile=None; give True, False'),
        (dict(compile='no'), "compile='no'; give True, False"),
        (dict(gradient_checkpointing='no'), "gradient_checkpointing='no'; give True or False"),
        (dict(conv_mode='sparse', compile=True), 'compile is for the dense encoder'),
        (dict(gradient_checkpointing=True, compile=True), 'without gradient_checkpointing'),
    ):
        with pytest.raises(ValueError, match=message):
            MomentEncoder(grid, 4, 3, 2, **settings)


def test_auto_is_dense_where_it_is_to_be_compiled(said):
    grid = MomentGrid(8, [3])
    encoder = MomentEncoder(grid, 128, 3, 2, compile=True)
    assert encoder.mode_for(torch.empty(1, 128, grid.num_moments)) == 'dense'
    assert said == ['Moment encoder: dense, which is what model.neck.compile compiles']
