"""Large batches in the memory of small ones: embeddings piece by piece, gradients of the whole."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmn_plugin.errors import InputError
from mmn_plugin.structures import GroundingDataSample, SentenceBatch

Embeddings = tuple[dict[str, Tensor], dict[str, Tensor]]
_told: list[dict[nn.Module, tuple[Tensor, Tensor]]] = []  # who asks for statistics, innermost last


def embed_in_pieces(
    model: nn.Module,
    inputs: Tensor,
    sentences: SentenceBatch,
    data_samples: list[GroundingDataSample],
) -> Embeddings:
    """Embed a batch so that its loss and gradient take the memory of a piece.

    Gradient caching (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited
    Setup", 2021) as activation checkpointing: the first pass keeps embeddings alone, the loss of
    all videos gives their gradient, and backward embeds one piece after the other again, with the
    random numbers of the first pass. What BatchNorm does: `NegativeSource`.

    Args:
        model (BaseLocalizer): Its ``head.negatives`` have ``piece`` and ``piece_statistics``.
        inputs (Tensor): (B, R, D) pooled features; (T, R, D) of all tubes.
        sentences (SentenceBatch): S sentences.
        data_samples (list[GroundingDataSample]): B videos.

    Returns:
        tuple[dict, dict]: As ``model.embed`` returns them of the whole batch.

    Raises:
        ValueError: If ``piece_statistics='whole'`` meets a SyncBatchNorm of several processes, or a
            BatchNorm that is used twice.
    """
    source, batch = model.head.negatives, (inputs, sentences, data_samples)
    if source.piece is None or len(data_samples) <= source.piece:
        return model.embed(*batch)
    norms = [one for one in model.modules() if isinstance(one, _BatchNorm) and one.training]
    first, again = {}, copied_statistics(norms)
    if norms and source.piece_statistics == 'whole':
        first = again = _constants(norms, partial(model.embed, *batch))
    parts = []
    for part in split_batch(source.piece, *batch):
        torch.clear_autocast_cache()  # a cast that pieces share would add up gradients in 16 bits
        contexts = partial(_contexts, first, again)
        parts.append(checkpoint(model.embed, *part, use_reentrant=False, context_fn=contexts))
    return tuple(
        {space: torch.cat([part[space] for part in side]) for space in side[0]}
        for side in zip(*parts, strict=True)
    )


def split_batch(
    piece: int,
    inputs: Tensor,
    sentences: SentenceBatch,
    data_samples: list[GroundingDataSample],
) -> Iterator[tuple[Tensor, SentenceBatch, list[GroundingDataSample]]]:
    """Arguments of ``embed`` of each piece.

    Args: ``piece`` videos at a time, the last time what is left; and as of `embed_in_pieces`.
    """
    row = place = 0
    for first in range(0, len(data_samples), piece):
        samples = data_samples[first : first + piece]
        rows = slice(row, row := row + sum(sample.num_inputs for sample in samples))
        own = range(place, place := place + sum(len(sample.sentences) for sample in samples))
        part = sentences.take(own)
        yield inputs[rows], part._replace(video=part.video - first), samples


def _contexts(*changes: dict[nn.Module, dict]) -> tuple:
    return tuple(map(with_attributes, changes))


@contextmanager
def with_attributes(changes: dict[nn.Module, dict]) -> Iterator[None]:
    """Context in which modules have other attributes, given by name."""
    before = [(one, {name: getattr(one, name) for name in new}) for one, new in changes.items()]
    try:
        for one, new in changes.items():
            _set(one, new)
        yield
    finally:
        for one, old in before:
            _set(one, old)


def _set(module: nn.Module, attributes: dict) -> None:
    for name, value in attributes.items():
        setattr(module, name, value)


def copied_statistics(norms: list[nn.Module]) -> dict[nn.Module, dict]:
    """Attributes with which a second pass does as the first, and updates copies of statistics."""
    return {
        norm: {name: buffer.clone() for name, buffer in norm.named_buffers(recurse=False)}
        | dict(training=norm.training)
        for norm in norms
    }


def _constants(norms: list[nn.Module], embed: Callable[[], Embeddings]) -> dict[nn.Module, dict]:
    """Attributes with which BatchNorm normalizes by the statistics of a pass without graph."""
    hooks = [norm.register_forward_pre_hook(_tell_of_call) for norm in norms]
    _told.append(dict.fromkeys(norms))
    try:
        with torch.no_grad():
            embed()
    finally:
        told = _told.pop()
        for hook in hooks:
            hook.remove()
    return {
        norm: dict(training=False, running_mean=found[0], running_var=found[1])
        for norm, found in told.items()
        if found is not None
    }


def _tell_of_call(norm: nn.Module, args: tuple[Tensor]) -> None:
    (values,) = args
    if isinstance(norm, nn.SyncBatchNorm) and get_world_size() > 1:
        raise InputError(
            "model.head.negatives.piece_statistics='whole' knows the statistics of one process, "
            "and SyncBatchNorm takes those of all: set piece_statistics='piece', or "
            "model.neck.conv_mode='sparse' or 'strips'"
        )
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    variance, mean = torch.var_mean(values, [0, *range(2, values.ndim)], correction=0)
    tell_statistics(norm, mean, variance)


def tell_statistics(norm: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """Tell whoever asks what a BatchNorm normalizes a batch by.

    For modules that normalize without calling ``norm``.

    Args:
        norm (nn.Module): The BatchNorm.
        mean (Tensor): (C,).
        variance (Tensor): (C,), biased.

    Raises:
        ValueError: If ``norm`` has normalized something else of the same batch.
    """
    if not _told or norm not in _told[-1]:
        return
    if _told[-1][norm] is not None:
        raise InputError(
            "model.head.negatives.piece_statistics='whole' needs a BatchNorm for each use: one of "
            f"{norm.num_features} channels is used twice; set piece_statistics='piece'"
        )
    _told[-1][norm] = mean, variance
