"""Names of the weights in the published code's checkpoints, and in ours."""
import re

from torch import Tensor

# (published, ours), each a module's name; what follows it (layer number, weight, bias, ...) stays.
PREFIXES = (
    ('featpool.conv.', 'backbone.conv.'),
    ('feat2d.convs.', 'neck.moment_map.convs.'),
    ('proposal_conv.convs.', 'neck.encoder.convs.'),
    ('proposal_conv.bn.', 'neck.encoder.bn.'),
    ('proposal_conv.conv1x1_iou.', 'neck.fc_iou.'),
    ('proposal_conv.conv1x1_contrastive.', 'neck.fc_contrastive.'),
    ('text_encoder.bert.', 'text_encoder.bert.'),
    ('text_encoder.layernorm.', 'text_encoder.layernorm.'),
    ('text_encoder.fc_out1.', 'text_encoder.fc_iou.'),
    ('text_encoder.fc_out2.', 'text_encoder.fc_contrastive.'),
)
# 1x1 convolutions of the published code that are linear layers here.
POINTWISE = re.compile(r'(neck\.fc_\w+|proposal_conv\.conv1x1_\w+)\.weight$')
# Constants that old releases of transformers saved among the weights.
CONSTANTS = ('text_encoder.bert.embeddings.position_ids',)
WRAPPER = 'module.'


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename (and reshape) published weights to this package's.

    Args:
        state (dict[str, Tensor]): Published names, perhaps prefixed ``module.``.

    Returns:
        dict[str, Tensor]: This package's names.

    Raises:
        KeyError: If a name is unknown or a module's weights are missing; all are named.
    """
    state = {name.removeprefix(WRAPPER): value for name, value in state.items()}
    renamed = _rename(state, PREFIXES, 'published MMN checkpoint')
    return {
        name: value.flatten(1) if POINTWISE.search(name) else value
        for name, value in renamed.items()
    }


def to_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`from_published`.

    Raises:
        KeyError: If a name is unknown or a module's weights are missing; all are named.
    """
    renamed = _rename(state, [(ours, theirs) for theirs, ours in PREFIXES],
                      'mmn_plugin MMN checkpoint')
    return {
        name: value[..., None, None] if POINTWISE.search(name) else value
        for name, value in renamed.items()
    }


def published_name(name: str) -> str:
    """The published name of one of our parameters or buffers."""
    return next(iter(_rename({name: None}, [(ours, theirs) for theirs, ours in PREFIXES], None)))


def _rename(state, prefixes, expected: str | None) -> dict:
    renamed, unknown = {}, []
    for name, value in state.items():
        if name in CONSTANTS:
            continue
        for old, new in prefixes:
            if name.startswith(old):
                renamed[new + name.removeprefix(old)] = value
                break
        else:
            unknown.append(name)
    missing = expected and _missing_names(state, [old for old, _ in prefixes])
    if unknown or missing:
        raise KeyError(f'this is no {expected or "MMN weight"}: '
                       + '; '.join(f'{kind} {", ".join(sorted(names))}' for kind, names in
                                   (('unknown', unknown), ('missing', missing)) if names))
    return renamed


def _missing_names(state, prefixes) -> list[str]:
    """Names that every MMN checkpoint of the depth that `state` shows must have."""
    missing = []
    for prefix in prefixes:
        found = {name.removeprefix(prefix) for name in state if name.startswith(prefix)}
        missing += [prefix + rest for rest in _expected(prefix, found) if rest not in found]
    return missing


def _expected(prefix: str, found: set[str]) -> list[str]:
    if prefix.endswith('bert.'):
        return ['embeddings.word_embeddings.weight']
    if not prefix.endswith(('convs.', 'bn.')):
        return ['weight', 'bias']
    if not found and ('feat2d' in prefix or 'moment_map' in prefix):
        return []  # the `pool` map has no weights
    layers = 1 + max((int(name.split('.')[0]) for name in found), default=0)
    kinds = ['weight', 'bias']
    if prefix.endswith('bn.'):
        kinds += ['running_mean', 'running_var']
    return [f'{layer}.{kind}' for layer in range(layers) for kind in kinds]
