"""All pools of a batch, and the batch's share in the loss over all ranks."""

from dataclasses import dataclass

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from .negative_pool import NegativePool


@dataclass
class Negatives:
    """What the losses of a batch are computed against.

    Attributes:
        pools (list[NegativePool]): The first one contains the batch itself.
        share (float | None): ``W * S / S_all``: W ranks, S sentences of this rank's batch, S_all
            of all ranks' batches. None where each rank's loss stands for itself, as published.

    With a share the mean is over all ranks' sentences. Let ``t_i`` be sentence i's term, so that
    one process with all videos would minimise ``L = sum_i t_i / S_all``. Rank r computes only its
    own terms, and minimises ``L_r = W * sum_{i of r} t_i / S_all = share_r * (mean of its
    terms)``. Gathered embeddings hand their gradient back to the rank that owns them, summed over
    ranks; so the gradient on all ranks' parameters together is that of ``sum_r L_r = W * L``, and
    DistributedDataParallel's mean over W ranks leaves exactly the gradient of L. Clipping comes
    after that mean, so it sees L's norm. The IoU loss is a mean over sentences and the P moments
    of each, P the same for all, so the same share serves it.
    """

    pools: list[NegativePool]
    share: float | None = None

    def scale(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means over this rank's sentences -> losses to minimise.

        Their gradient is that of ``L_r``; their value is L's, the same on all ranks.
        """
        if self.share is None:
            return losses
        own = torch.stack(list(losses.values())) * self.share
        over_all = own.detach().clone()
        all_reduce(over_all, op='mean')
        return dict(zip(losses, own + (over_all - own.detach()), strict=True))
