"""Embeddings of the moments of a video, window by window."""

import torch
from torch import Tensor

from .window_plan import WindowPlan


class MomentSums:
    """Adds up what the windows of a video say about its moments.

    No window is kept, so that memory grows with the different moments of a video alone.

    Args:
        plan (WindowPlan): Windows and moments of the video.
    """

    def __init__(self, plan: WindowPlan):
        self.plan = plan
        self._sums: dict[str, Tensor] = {}

    def add(self, index: int, moments: dict[str, Tensor]) -> None:
        """Add a window.

        Args:
            index (int): Number of the window.
            moments (dict[str, Tensor]): Its unit embeddings, (P, J) per joint space.
        """
        for space, values in moments.items():
            if len(self.plan) == 1:
                self._sums[space] = values
                continue
            if space not in self._sums:
                self._sums[space] = values.new_zeros(len(self.plan.spans), values.shape[1])
            weight = self.plan.weight[index].to(values)
            place = self.plan.place[index].to(values.device)
            self._sums[space].index_add_(0, place, values * weight[:, None])

    def mean(self) -> dict[str, Tensor]:
        """Mean embedding of every moment, (U, J) per joint space.

        Not made unit again: windows that disagree about a moment make its cosines small.
        """
        if len(self.plan) == 1:
            return self._sums
        counts = torch.zeros(len(self.plan.spans)).index_add(
            0, self.plan.place.flatten(), self.plan.weight.flatten()
        )  # (U,)
        for values in self._sums.values():
            values.div_(counts.to(values)[:, None])
        return self._sums
