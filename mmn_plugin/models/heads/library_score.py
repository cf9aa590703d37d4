"""A head's score of moments of any number of videos, as libraries have it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmn_plugin.structures import VideoEmbedding


@dataclass(frozen=True)
class FusedScore:
    """A head's `fuse` as the score of a library, for moments of any number of videos.

    Attributes:
        fuse (Callable): The head's.
        spaces (tuple[str, ...]): Spaces of the products.
    """

    fuse: Callable
    spaces: tuple[str, ...]

    def __call__(
        self, products: dict[str, Tensor], lengths: Tensor, trust: Tensor | None = None
    ) -> Tensor:
        """Scores (...) of products (...) per space; see ``BaseHead.library_score``."""
        spans = torch.stack([torch.zeros_like(lengths), lengths], -1)
        # moments of many videos in one: nothing of it but length and number of windows counts
        video = VideoEmbedding({}, spans, 'library', duration=1.0, num_windows=2)
        return trusted(self.fuse(products, video), trust)


def trusted(scores: Tensor, trust: Tensor | None) -> Tensor:
    """Scores times the trust in their moments, float64."""
    return scores.double() if trust is None else scores.double() * trust
