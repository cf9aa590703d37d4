"""Which videos of an epoch follow which: shares of several corpora, and hard batches."""

from collections.abc import Iterator, Sized

import numpy as np
from mmaction.registry import DATA_SAMPLERS
from mmengine.dataset import DefaultSampler
from mmengine.dist import broadcast_object_list

from mmn_plugin.errors import InputError

from .grounding_dataset import JointDataset


@DATA_SAMPLERS.register_module()
class CorpusSampler(DefaultSampler):
    """Draws each corpus with a chosen share of the epoch, whatever its size.

    Losses and figures count sentences, of which a video of TACoS has 135 and one of Charades-STA 2;
    so a share is one of the sentences. With share s_c of corpus c, m_c sentences per video on
    average, and S sentences per epoch, an epoch has round(s_c S / m_c) videos of c (at least 1), in
    random order.

    A corpus is drawn from without replacement across epochs: none of its videos comes a second time
    before all have come once. The order follows from seed and epoch alone, so that a run is resumed
    inside an epoch as with MMEngine's ``DefaultSampler``, and with another number of processes at
    its end.

    Args:
        dataset (JointDataset): The corpora.
        shares (dict[str, float], optional): Relative share of each corpus. Defaults to None: all
            are alike.
        num_sentences (int, optional): Sentences of an epoch (S), to rounding. Defaults to None: as
            many as the corpora hold together.
        seed (int, optional): The same in all processes. Defaults to None: drawn at random.

    Attributes:
        counts (dict[str, int]): Videos of each corpus in an epoch, of all processes together.

    Raises:
        ValueError: If the dataset is no `JointDataset`, or the shares are not of its corpora.
    """

    def __init__(
        self,
        dataset: JointDataset,
        shares: dict[str, float] | None = None,
        num_sentences: int | None = None,
        seed: int | None = None,
    ):
        if not isinstance(dataset, JointDataset):
            raise InputError(f'CorpusSampler is for a JointDataset, not {type(dataset).__name__}')
        super().__init__(dataset, seed=seed)
        self._videos, sentences = self._corpora(dataset)
        if shares is None:
            shares = dict.fromkeys(self._videos, 1.0)
        if {*shares} != {*self._videos} or not all(share > 0 for share in shares.values()):
            raise InputError(
                f'CorpusSampler.shares={dict(shares)}: give a number above 0 for each of the '
                f'corpora {", ".join(self._videos)}'
            )
        if num_sentences is not None and num_sentences < 1:
            raise InputError(f'CorpusSampler.num_sentences={num_sentences}: it must be at least 1')
        total, all_shares = num_sentences or sum(sentences.values()), sum(shares.values())
        self.counts = {
            name: max(round(shares[name] / all_shares * total / count * len(videos)), 1)
            for (name, videos), count in zip(self._videos.items(), sentences.values(), strict=True)
        }
        self.num_samples = -(-sum(self.counts.values()) // self.world_size)
        self.total_size = self.num_samples * self.world_size

    @staticmethod
    def _corpora(dataset: JointDataset) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Places of each corpus' videos in the dataset, and its number of sentences."""
        videos, sentences, first = {}, {}, 0
        for part in dataset.datasets:
            count = sum(len(part.get_data_info(i)['sentences']) for i in range(len(part)))
            sentences[part.corpus] = sentences.get(part.corpus, 0) + count
            places = np.arange(first, first + len(part))
            videos[part.corpus] = np.append(videos.get(part.corpus, places[:0]), places)
            first += len(part)
        return videos, sentences

    def __iter__(self) -> Iterator[int]:
        """Places of this process's videos of the epoch."""
        drawn = [self._draw(number, name) for number, name in enumerate(self._videos, start=1)]
        order = np.random.default_rng((self.seed, 0, self.epoch)).permutation(np.concatenate(drawn))
        return iter(np.resize(order, self.total_size)[self.rank :: self.world_size].tolist())

    def _draw(self, number: int, name: str) -> np.ndarray:
        """The epoch's part of one random order of a corpus after another."""
        videos, count = self._videos[name], self.counts[name]
        first, skipped = divmod(self.epoch * count, len(videos))
        passes = range(first, first + -(-(skipped + count) // len(videos)))
        orders = [np.random.default_rng((self.seed, number, k)).permutation(videos) for k in passes]
        return np.concatenate(orders)[skipped : skipped + count]


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
        # similar ones of a group
        self.similar = group_size - round(share * group_size) if 0 <= share <= 1 else 0
        if self.similar < 2 or group_size > len(dataset):
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
