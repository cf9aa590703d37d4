"""Several corpora as one dataset, and how they are sampled."""

from collections.abc import Iterator, Sequence

import numpy as np
from mmaction.registry import DATA_SAMPLERS, DATASETS
from mmengine.dataset import ConcatDataset, DefaultSampler

from mmn_plugin.errors import InputError


@DATASETS.register_module()
class JointDataset(ConcatDataset):
    """Several corpora one after another, told apart by their names.

    Unlike MMEngine's ``ConcatDataset`` it builds its datasets in any default scope, and needs names
    that keep videos of the same id apart.

    Args:
        datasets (Sequence): Datasets or their configs, each with a ``corpus`` (see
            `TemporalGroundingDataset`); several may have the same one.
        **kwargs: See `mmengine.dataset.ConcatDataset`.

    Raises:
        ValueError: If a dataset has no corpus.
    """

    def __init__(self, datasets: Sequence, **kwargs):
        built = [DATASETS.build(part) if isinstance(part, dict) else part for part in datasets]
        for part in built:
            if not getattr(part, 'corpus', None):
                raise InputError(
                    f'JointDataset: the dataset of {getattr(part, "ann_file", part)} has no '
                    'corpus; set it in its entry of `datasets`'
                )
        super().__init__(built, **kwargs)


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
