"""A slowly moving copy of a localizer's encoders, for what a memory bank keeps."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .pieces import Embeddings, join_pieces, split_batch

ENCODERS = ('backbone', 'neck', 'text_encoder')  # all that is trained


class MomentumEncoder(nn.Module):
    """Embeds videos and sentences with the moving average of the weights (MoCo, He et al. 2020).

    ``average = momentum * average + (1 - momentum) * weights`` before each batch in training, from
    the weights of the first one on. The copy is neither trained nor part of a ``state_dict``; it is
    written beside the checkpoints that a run resumes from. Its BatchNorm normalizes by the batch.

    Args:
        momentum (float): Share of the average that stays.
    """

    def __init__(self, momentum: float):
        super().__init__()
        self.momentum = momentum
        self._copies: list[nn.ModuleDict] = []  # a list, so that they are no submodules
        self._moved: set[str] = set()  # names of what was ever trained
        self._loaded: dict[str, Tensor] = {}  # until the first batch

    @torch.no_grad()
    def forward(
        self, encoders: Mapping[str, nn.Module], batch: tuple, piece: int | None = None
    ) -> Embeddings:
        """Move towards the encoders, and embed a batch.

        Args:
            encoders (Mapping[str, nn.Module]): Those of `ENCODERS`.
            batch (tuple): ``inputs``, ``sentences`` and ``data_samples``, as of `BaseLocalizer`.
            piece (int, optional): Videos embedded at a time. Defaults to None: all.

        Returns:
            tuple[dict[str, Tensor], dict[str, Tensor]]: (B, U, J) and (S, J) per space.
        """
        self._move(nn.ModuleDict(encoders))
        backbone, neck, text_encoder = (self._copies[0][name] for name in ENCODERS)
        parts = split_batch(piece, *batch)
        return join_pieces(
            [(neck(backbone(inputs)), text_encoder(tokens)) for inputs, tokens, _ in parts]
        )

    def _move(self, encoders: nn.ModuleDict) -> None:
        first = not self._copies
        if first:
            self._copies.append(copy.deepcopy(encoders).requires_grad_(False))
            self._copies[0].load_state_dict(self._loaded, strict=False)
        average = dict(self._copies[0].named_parameters())
        trained = {name: one for name, one in encoders.named_parameters() if one.requires_grad}
        if not first or self._loaded:
            mine = [average[name] for name in trained]
            torch._foreach_lerp_(mine, [*trained.values()], 1 - self.momentum)
        self._moved |= {*trained, *self._loaded}
        self._loaded = {}

    def common_state(self) -> dict:
        """The average of all that was ever trained, by name; the same on all ranks."""
        if not self._copies:
            return dict(self._loaded)
        average = dict(self._copies[0].named_parameters())
        return {name: average[name].cpu().clone() for name in sorted(self._moved)}

    def load_common_state(self, state: dict) -> None:
        """Take over what ``common_state`` returned; the rest is that of the encoders."""
        self._copies.clear()
        self._moved.clear()
        self._loaded = dict(state)
