"""Names of the weights in the published code's checkpoints, and in ours."""

import re

from torch import Tensor

AFFINE = ('weight', 'bias')
STATISTICS = ('running_mean', 'running_var')
LAYER = r'(0|[1-9]\d{0,2})'
# Parts of DistilBERT, which has the same names in both.
BERT_EMBEDDINGS = (
    'word_embeddings.weight',
    'position_embeddings.weight',
    'LayerNorm.weight',
    'LayerNorm.bias',
)
BERT_MODULES = (
    'attention.q_lin',
    'attention.k_lin',
    'attention.v_lin',
    'attention.out_lin',
    'sa_layer_norm',
    'ffn.lin1',
    'ffn.lin2',
    'output_layer_norm',
)
BERT_LAYER = tuple(f'{module}.{kind}' for module in BERT_MODULES for kind in AFFINE)

# (published, ours, group of layers or None, names below), the first two each a module's prefix.
# A prefix with a group is followed by a layer's number, and all prefixes of a group have the same
# layers. What follows a prefix is the same in both.
MODULES = (
    ('featpool.conv.', 'backbone.conv.', None, AFFINE),
    ('feat2d.convs.', 'neck.moment_map.convs.', 'map', AFFINE),
    ('proposal_conv.convs.', 'neck.encoder.convs.', 'encoder', AFFINE),
    ('proposal_conv.bn.', 'neck.encoder.bn.', 'encoder', AFFINE + STATISTICS),
    ('proposal_conv.conv1x1_iou.', 'neck.fc_iou.', None, AFFINE),
    ('proposal_conv.conv1x1_contrastive.', 'neck.fc_contrastive.', None, AFFINE),
    ('text_encoder.bert.embeddings.', 'text_encoder.bert.embeddings.', None, BERT_EMBEDDINGS),
    (
        'text_encoder.bert.transformer.layer.',
        'text_encoder.bert.transformer.layer.',
        'bert',
        BERT_LAYER,
    ),
    ('text_encoder.layernorm.', 'text_encoder.layernorm.', None, AFFINE),
    ('text_encoder.fc_out1.', 'text_encoder.fc_iou.', None, AFFINE),
    ('text_encoder.fc_out2.', 'text_encoder.fc_contrastive.', None, AFFINE),
)
OPTIONAL_GROUP = 'map'  # the `pool` map has no weights
OPTIONAL_NAME = 'num_batches_tracked'  # of BatchNorm; PyTorch fills it in
# 1x1 convolutions of the published code that are linear layers here.
POINTWISE = re.compile(r'(neck\.fc_\w+|proposal_conv\.conv1x1_\w+)\.weight$')
# What checkpoints hold and nothing uses: constants that old releases of transformers saved among
# the weights, and two layers of the HC-STVG variant.
UNUSED = (
    'text_encoder.bert.embeddings.position_ids',
    *(f'featpool.{layer}.{kind}' for layer in ('fc1', 'fc2') for kind in AFFINE),
)
WRAPPER = 'module.'
PUBLISHED, OURS = 0, 1  # columns of MODULES
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
    state = {name.removeprefix(WRAPPER): value for name, value in state.items()}
    _require_all(state, PUBLISHED, 'published MMN checkpoint')
    return {
        name: value.flatten(1) if POINTWISE.search(name) else value
        for name, value in _rename(state, PUBLISHED, OURS).items()
    }


def to_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`from_published`.

    Raises:
        KeyError: If a name is unknown or one is missing; the message names them.
    """
    _require_all(state, OURS, 'mmn_plugin MMN checkpoint')
    return {
        name: value[..., None, None] if POINTWISE.search(name) else value
        for name, value in _rename(state, OURS, PUBLISHED).items()
    }


def published_name(name: str) -> str:
    """The published name of one of our parameters or buffers.

    Raises:
        KeyError: If MMN has no such weight.
    """
    if _split(name, OURS) is None:
        raise KeyError(f'this is no MMN weight: {name}')
    return next(iter(_rename({name: None}, OURS, PUBLISHED)))


def _rename(state: dict, source: int, target: int) -> dict:
    renamed = {}
    for name, value in state.items():
        if name not in UNUSED:
            module, _ = _split(name, source)
            renamed[module[target] + name.removeprefix(module[source])] = value
    return renamed


def _split(name: str, column: int) -> tuple[tuple, int | None] | None:
    """Row of MODULES that a name belongs to and its layer's number; None if it is unknown."""
    for module in MODULES:
        if not name.startswith(module[column]):
            continue
        _, _, group, below = module
        allowed = (*below, OPTIONAL_NAME) if STATISTICS[0] in below else below
        layer = f'{LAYER}[.]' if group else '()'
        found = re.fullmatch(
            layer + f'({"|".join(map(re.escape, allowed))})', name.removeprefix(module[column])
        )
        return found and (module, int(found[1]) if group else None)
    return None


def _require_all(state: dict, column: int, expected: str) -> None:
    split = {name: _split(name, column) for name in state if name not in UNUSED}
    unknown = [name for name, found in split.items() if found is None]
    layers: dict[str, int] = {}
    for module, layer in filter(None, split.values()):
        if layer is not None:
            layers[module[2]] = max(layers.get(module[2], 0), 1 + layer)
    missing = [
        name for module in MODULES for name in _names(module, column, layers) if name not in state
    ]
    if unknown or missing:
        raise KeyError(
            f'this is no {expected}: '
            + '; '.join(
                f'{kind} {_listed(names)}'
                for kind, names in (('unknown', unknown), ('missing', missing))
                if names
            )
        )


def _names(module: tuple, column: int, layers: dict[str, int]) -> list[str]:
    """Names below a row of MODULES in a checkpoint with so many layers in each group."""
    prefix, group, below = module[column], module[2], module[3]
    if group is None:
        return [prefix + name for name in below]
    count = layers.get(group, int(group != OPTIONAL_GROUP))
    return [f'{prefix}{layer}.{name}' for layer in range(count) for name in below]


def _listed(names: list[str]) -> str:
    more = f' and {len(names) - NAMED} more' if len(names) > NAMED else ''
    return ', '.join(sorted(names)[:NAMED]) + more
