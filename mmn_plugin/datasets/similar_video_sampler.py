"""Hard batches: videos that resemble each other train together."""

from collections.abc import Iterator, Sized

import numpy as np
from mmaction.registry import DATA_SAMPLERS
from mmengine.dataset import DefaultSampler
from mmengine.dist import broadcast_object_list

from mmn_plugin.errors import InputError


@DATA_SAMPLERS.register_module()
class SimilarVideoSampler(DefaultSampler):
    """Lays videos that resemble each other side by side, so that a batch's negatives are hard.

    Every video comes once in an epoch. A random ``share`` of them is set aside; of the others one
    is drawn, its nearest neighbors among those that are left make a group with it, and so on. Each
    group of ``group_size`` is filled up with videos set aside, and groups follow in random order;
    what makes no whole group is random and comes last. Which videos are near is said by ``vectors``
    (cosine), which `SimilarVideoHook` sets.

    The order follows from seed, epoch and vectors alone, so that a run is resumed inside an epoch
    as with MMEngine's ``DefaultSampler``. Processes deal the order out one by one, so a group that
    is as large as all processes' batches together is one step's.

    Args:
        dataset (Sized): The dataset.
        group_size (int): Videos of a group, those set aside included: as many as a step has, of all
            processes together, or a part of them for several groups in a step.
        share (float): Share of random videos, rounded to whole videos of a group, of which at least
            2 are similar. Defaults to 0.25.
        seed (int, optional): The same in all processes. Defaults to None: drawn at random.

    Attributes:
        vectors (np.ndarray | None): (N, C) unit vectors of the dataset's N videos.

    Raises:
        ValueError: If a value is out of range, or there are no vectors when an epoch begins.
    """

    def __init__(
        self, dataset: Sized, group_size: int, share: float = 0.25, seed: int | None = None
    ):
        super().__init__(dataset, seed=seed)
        self.group_size = group_size
        self.similar = group_size - round(share * group_size)  # of a group
        if not (share >= 0 and self.similar >= 2 and group_size <= len(dataset)):
            raise InputError(
                f'SimilarVideoSampler: group_size={group_size}, share={share}; give a share from 0 '
                f'to 1 that leaves 2 similar videos in a group, and at most the {len(dataset)} '
                'videos of the training'
            )
        self.vectors: np.ndarray | None = None

    def __iter__(self) -> Iterator[int]:
        """Places of this process's videos of the epoch."""
        if self.vectors is None:
            raise InputError(
                'SimilarVideoSampler knows no video: set default_hooks.similar_videos='
                "dict(type='SimilarVideoHook')"
            )
        order = [self._order()]
        broadcast_object_list(order)  # machines may differ in a cosine's last bit
        return iter(np.resize(order[0], self.total_size)[self.rank :: self.world_size].tolist())

    def _order(self) -> np.ndarray:
        """Places of all videos, group by group."""
        rng = np.random.default_rng((self.seed, self.epoch))
        count = len(self.dataset) // self.group_size
        left, others = np.split(rng.permutation(len(self.dataset)), [count * self.similar])
        groups = np.empty((count, self.group_size), np.int64)
        for group in rng.permutation(count):  # those of the end get what others left
            cosines = self.vectors[left] @ self.vectors[left[0]]
            nearest = np.argpartition(-cosines, self.similar - 1)[: self.similar]
            groups[group, : self.similar] = left[nearest]
            left = np.delete(left, nearest)
        aside = groups[:, self.similar :]
        aside[:] = others[: aside.size].reshape(aside.shape)
        return np.append(rng.permuted(groups, axis=1), others[aside.size :])
