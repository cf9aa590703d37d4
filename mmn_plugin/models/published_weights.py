"""Names of the weights in the published code's checkpoints, and in ours."""

import re

from torch import Tensor

AFFINE = ('weight', 'bias')
NORM = (*AFFINE, 'running_mean', 'running_var', 'num_batches_tracked')
EMBEDDINGS = (
    'word_embeddings.weight',
    'position_embeddings.weight',
    *(f'LayerNorm.{kind}' for kind in AFFINE),
)
# a layer of DistilBERT, which has the same names in both
BERT_LAYER = tuple(
    f'{module}.{kind}'
    for module in (
        *(f'attention.{part}' for part in ('q_lin', 'k_lin', 'v_lin', 'out_lin')),
        'sa_layer_norm',
        'ffn.lin1',
        'ffn.lin2',
        'output_layer_norm',
    )
    for kind in AFFINE
)
# (published, ours, names below). A star stands for a layer's number, and modules of one group of
# layers (`convs` and `bn` of the encoder) have the same ones.
MODULES = (
    ('featpool.conv', 'backbone.conv', AFFINE),
    ('feat2d.convs.*', 'neck.moment_map.convs.*', AFFINE),
    ('proposal_conv.convs.*', 'neck.encoder.convs.*', AFFINE),
    ('proposal_conv.bn.*', 'neck.encoder.bn.*', NORM),
    ('proposal_conv.conv1x1_iou', 'neck.fc_iou', AFFINE),
    ('proposal_conv.conv1x1_contrastive', 'neck.fc_contrastive', AFFINE),
    ('text_encoder.bert.embeddings', 'text_encoder.bert.embeddings', EMBEDDINGS),
    (*['text_encoder.bert.transformer.layer.*'] * 2, BERT_LAYER),
    ('text_encoder.layernorm', 'text_encoder.layernorm', AFFINE),
    ('text_encoder.fc_out1', 'text_encoder.fc_iou', AFFINE),
    ('text_encoder.fc_out2', 'text_encoder.fc_contrastive', AFFINE),
)
PUBLISHED, OURS = 0, 1  # columns of MODULES
# 1x1 convolutions of the published code that are linear layers here.
POINTWISE = re.compile(r'(neck\.fc_\w+|proposal_conv\.conv1x1_\w+)\.weight$')
# What checkpoints hold and nothing uses: constants that old releases of transformers saved among
# the weights, and two layers of the HC-STVG variant.
UNUSED = (
    'text_encoder.bert.embeddings.position_ids',
    *(f'featpool.{layer}.{kind}' for layer in ('fc1', 'fc2') for kind in AFFINE),
)
NAMED = 20  # names of one kind in a message


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename (and reshape) published weights to this package's.

    Args:
        state (dict[str, Tensor]): Published names, perhaps prefixed ``module.``.

    Returns:
        dict[str, Tensor]: This package's names.

    Raises:
        KeyError: If a name is unknown or one is missing; the message names them.
    """
    state = {name.removeprefix('module.'): value for name, value in state.items()}
    return {
        name: value.flatten(1) if POINTWISE.search(name) else value
        for name, value in _renamed(state, PUBLISHED, 'published MMN checkpoint').items()
    }


def to_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`from_published`.

    Raises:
        KeyError: If a name is unknown or one is missing; the message names them.
    """
    return {
        name: value[..., None, None] if POINTWISE.search(name) else value
        for name, value in _renamed(state, OURS, 'mmn_plugin MMN checkpoint').items()
    }


def published_name(name: str) -> str:
    """The published name of one of our parameters or buffers.

    Raises:
        KeyError: If MMN has no such weight.
    """
    names = _names([name], OURS)
    if name not in names:
        raise KeyError(f'this is no MMN weight: {name}')
    return names[name]


def _renamed(state: dict[str, Tensor], column: int, expected: str) -> dict[str, Tensor]:
    state = {name: value for name, value in state.items() if name not in UNUSED}
    names = _names(state, column)
    optional = NORM[-1]  # which PyTorch fills in
    missing = [name for name in names if name not in state and not name.endswith(optional)]
    unknown = [name for name in state if name not in names]
    if unknown or missing:
        found = (('unknown', unknown), ('missing', missing))
        parts = [f'{kind} {_listed(wrong)}' for kind, wrong in found if wrong]
        raise KeyError(f'this is no {expected}: {"; ".join(parts)}')
    return {names[name]: value for name, value in state.items()}


def _names(state, column: int) -> dict[str, str]:
    """Names of all weights of a model of so many layers, to their names on the other side."""
    least = dict(feat2d=0)  # the `pool` map has no weights
    layers, names = {}, {}
    for module in MODULES:
        group, numbered = module[PUBLISHED].partition('.')[0], '*' in module[column]
        prefix = re.escape(module[column]).replace(r'\*', r'(0|[1-9]\d{0,2})') + '[.]'
        found = (re.match(prefix, name) for name in state if numbered)
        counts = (1 + int(match[1]) for match in found if match)
        layers[group] = max([layers.get(group, least.get(group, 1)), *counts])
    for *prefixes, below in MODULES:
        group = prefixes[PUBLISHED].partition('.')[0]
        for layer in range(layers[group] if '*' in prefixes[column] else 1):
            source, target = (
                prefixes[side].replace('*', str(layer)) for side in (column, 1 - column)
            )
            names.update((f'{source}.{name}', f'{target}.{name}') for name in below)
    return names


def _listed(names: list[str]) -> str:
    more = f' and {len(names) - NAMED} more' if len(names) > NAMED else ''
    return ', '.join(sorted(names)[:NAMED]) + more
